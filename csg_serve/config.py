"""A model's configuration as Triton's own protobuf message, printed by protobuf: `config.pbtxt` can't be malformed."""

from __future__ import annotations

from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import ModelConfig, ModelInstanceGroup, ModelOutput

from csg.bundle import LABELS, PLAN
from csg.card import ModelCard, SceneInput, parse_card

CARD_PARAMETER = "csg_card"
MAX_BATCH_SIZE = 32
MAX_BATCH_PIXELS = 2**21  # of a segmenter, whose logits take 4 bytes for each class and pixel while it works
QUEUE_DELAY_US = 500


def model_config(card: ModelCard, name: str, version: int, backend: str) -> ModelConfig:
    """What Triton has to know to serve a bundle.

    Args:
        name: the model's name in the repository.
        version: the one to serve. Named outright, so that replacing `config.pbtxt` is the one step that makes a
            version live, together with its card.
        backend: "python", which runs `model.py` beside the ONNX file, "onnxruntime", or "tensorrt", for the plan.
    """
    config = ModelConfig(name=name, backend=backend, max_batch_size=max_batch_size(card))
    if backend == "tensorrt":
        config.platform, config.default_model_filename = "tensorrt_plan", PLAN
    shape = [card.input.height or -1, card.input.width or -1, 3]
    config.input.add(name=card.input.name, data_type=f"TYPE_{card.input.dtype}", dims=shape)
    config.output.extend(
        ModelOutput(name=output.name, data_type=f"TYPE_{output.dtype}", dims=output.shape[1:])
        for output in card.outputs
    )
    if card.task == "classification":
        config.output[0].label_filename = LABELS
    config.version_policy.specific.versions.append(version)
    config.dynamic_batching.max_queue_delay_microseconds = QUEUE_DELAY_US
    kinds = {"python": ModelInstanceGroup.KIND_CPU, "tensorrt": ModelInstanceGroup.KIND_GPU}
    kind = kinds.get(backend, ModelInstanceGroup.KIND_AUTO)
    config.instance_group.add(kind=kind, count=1)
    config.parameters[CARD_PARAMETER].string_value = card.to_json()
    return config


def max_batch_size(card: ModelCard) -> int:
    """Images in a batch: 32; of a segmenter as many as bounded memory allows, of free sizes 4."""
    spec = card.input
    if card.engine and card.engine.library == "tensorrt":
        return card.engine.profile[2][0]
    if not isinstance(spec, SceneInput):
        return MAX_BATCH_SIZE
    if spec.height is None or spec.width is None:
        return 4
    return max(1, min(MAX_BATCH_SIZE, MAX_BATCH_PIXELS // (spec.height * spec.width)))


def card_of(config: ModelConfig, where: str) -> ModelCard:
    """The card that a configuration carries.

    Raises:
        InputError: it is malformed.
    """
    return parse_card(config.parameters[CARD_PARAMETER].string_value, where)


def config_text(config: ModelConfig) -> str:
    """The message as `config.pbtxt` holds it."""
    return str(text_format.MessageToString(config, as_utf8=True))


def read_config(path: Path) -> ModelConfig | None:
    """The message in a `config.pbtxt`; None where there is none that can be read."""
    try:
        return text_format.Parse(path.read_text(), ModelConfig())
    except (OSError, UnicodeDecodeError, text_format.ParseError):
        return None
