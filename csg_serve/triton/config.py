"""`config.pbtxt`: a model's configuration, built and printed as Triton's own protobuf message."""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path

from google.protobuf import text_format
from tritonclient.grpc.model_config_pb2 import (
    ModelConfig,
    ModelInstanceGroup,
    ModelOptimizationPolicy,
    ModelOutput,
)

from csg.bundle import LABELS, PLAN
from csg.card import ModelCard, parse_card
from csg.errors import InputError
from csg.golden import GoldenAnswers, parse_golden
from csg_serve.triton.deploy_options import (
    DEFAULTS,
    PRECISION_MODES,
    DeployOptions,
    max_batch_size,
    onnxruntime_threads,
)

CONFIG = "config.pbtxt"

CARD_PARAMETER = "csg_card"
"""Parameter of a configuration that carries the model card."""

GOLDEN_PARAMETER = "csg_golden"
"""Parameter of a configuration that carries the golden answers (`csg.golden`), if the bundle has some."""

ENCODED_PARAMETER = "csg_encoded_for"
"""Parameter of `<name>_encoded`: the name of its tensor model."""

BEFORE_PARAMETER = "csg_before"
"""Parameter of a configuration: the version that was served when this one was deployed, for `csg deploy --rollback`."""

CACHE_BYTES = 64 * 2**20
"""Size of the response cache of all models together."""

ENCODED = "encoded"

ENCODED_INSTANCES = 4
"""Instances of `<name>_encoded`: some prepare images while others wait for the tensor model."""

ENCODED_BATCH = 8
"""Largest batch of `<name>_encoded`: a larger one would wait longer for its last image."""

WARM_UP_SIDE = 512
"""Side of the warm-up image of a segmenter of free image size, in pixels."""


def model_config(card: ModelCard, name: str, version: int, options: DeployOptions = DEFAULTS) -> ModelConfig:
    """Return the configuration of a tensor model.

    Args:
        card: the bundle's card, which the configuration carries.
        name: the model's name in the repository.
        version: the version to serve. It is named explicitly, so that replacing `config.pbtxt` is the one step that
            makes a version live, together with its card.
        options: how the model is served; `backend` must be resolved.
    """
    backend = options.backend
    config = ModelConfig(name=name, backend=backend, max_batch_size=options.max_batch or max_batch_size(card))
    if backend == "tensorrt":
        config.platform, config.default_model_filename = "tensorrt_plan", PLAN
    shape = [card.input.height or -1, card.input.width or -1, 3]
    config.input.add(name=card.input.name, data_type=f"TYPE_{card.input.dtype}", dims=shape)
    config.output.extend(_outputs(card))
    if card.task == "classification":
        config.output[0].label_filename = LABELS
    config.version_policy.specific.versions.append(version)
    _add_queue(config, options)
    _add_instances(config, options)
    if options.warm_up:
        _add_warm_up(config, card)
    if options.response_cache:
        config.response_cache.enable = True
    if options.accelerator == "tensorrt":
        config.optimization.execution_accelerators.gpu_execution_accelerator.append(_tensorrt(config, card, options))
    if backend == "onnxruntime":
        config.parameters["intra_op_thread_count"].string_value = str(onnxruntime_threads(options, card))
    config.parameters[CARD_PARAMETER].string_value = card.to_json()
    return config


def encoded_config(card: ModelCard, name: str, version: int, options: DeployOptions = DEFAULTS) -> ModelConfig:
    """Return the configuration of the model that takes image files for the tensor model `name`."""
    batch = options.max_batch or min(ENCODED_BATCH, max_batch_size(card))
    config = ModelConfig(name=encoded_name(name), backend="python", max_batch_size=batch)
    config.input.add(name=ENCODED, data_type="TYPE_STRING", dims=[1])
    if card.task == "classification":
        config.output.extend(_outputs(card))
    else:  # only the label map, in the size of the image
        config.output.add(name=card.outputs[0].name, data_type=f"TYPE_{card.outputs[0].dtype}", dims=[-1, -1])
    config.output.add(name="error", data_type="TYPE_STRING", dims=[1])
    config.version_policy.specific.versions.append(version)
    _add_queue(config, options)
    config.instance_group.add(kind=ModelInstanceGroup.KIND_CPU, count=ENCODED_INSTANCES)
    config.parameters[ENCODED_PARAMETER].string_value = name
    return config


def encoded_name(name: str) -> str:
    """Return the name of the model that takes image files for the tensor model `name`."""
    return f"{name}_{ENCODED}"


def _outputs(card: ModelCard) -> list[ModelOutput]:
    return [
        ModelOutput(name=output.name, data_type=f"TYPE_{output.dtype}", dims=output.shape[1:])
        for output in card.outputs
    ]


def _add_queue(config: ModelConfig, options: DeployOptions) -> None:
    """Set how requests wait and share a batch. A client may ask for a shorter timeout than the model's."""
    batching = config.dynamic_batching
    batching.max_queue_delay_microseconds = round(1000 * options.queue_delay_ms)
    batching.preferred_batch_size.extend(sorted(options.preferred_batch))
    if options.queue_size is not None:
        batching.default_queue_policy.max_queue_size = options.queue_size
    if options.timeout_ms is not None:
        policy = batching.default_queue_policy
        policy.default_timeout_microseconds = round(1000 * options.timeout_ms)
        policy.allow_timeout_override = True


def _add_instances(config: ModelConfig, options: DeployOptions) -> None:
    """Set number and device of the instances.

    With device "auto" the scripts of the Python backend look for a GPU themselves, and a TensorRT plan needs one.
    """
    auto = {"python": ModelInstanceGroup.KIND_MODEL, "tensorrt": ModelInstanceGroup.KIND_GPU}
    kinds = {
        "auto": auto.get(config.backend, ModelInstanceGroup.KIND_AUTO),
        "cpu": ModelInstanceGroup.KIND_CPU,
        "gpu": ModelInstanceGroup.KIND_GPU,
    }
    kind = kinds[options.device]
    group = config.instance_group.add(kind=kind, count=options.instances or 1)
    for resource, count in options.resources:
        group.rate_limiter.resources.add(name=resource, count=count)
    if options.priority is not None:
        group.rate_limiter.priority = options.priority


def _add_warm_up(config: ModelConfig, card: ModelCard) -> None:
    """Add warm-up requests of black images: one image, and for a classifier the largest batch."""
    dims = [card.input.height or WARM_UP_SIDE, card.input.width or WARM_UP_SIDE, 3]
    sizes = {1, config.max_batch_size} if card.task == "classification" else {1}
    for size in sorted(sizes):
        sample = config.model_warmup.add(name=f"batch of {size}", batch_size=size)
        pixels = sample.inputs[card.input.name]
        pixels.data_type, pixels.zero_data = config.input[0].data_type, True
        pixels.dims.extend(dims)


def _tensorrt(
    config: ModelConfig, card: ModelCard, options: DeployOptions
) -> ModelOptimizationPolicy.ExecutionAccelerators.Accelerator:
    """Return TensorRT's settings: the bundle's precision, a cache of engines, one engine for all batch sizes.

    The cache is the model's own: ONNX Runtime does not notice that an engine was built from other weights.
    """
    digest = hashlib.sha256(card.to_json().encode()).hexdigest()[:16]
    parameters = {
        "precision_mode": PRECISION_MODES[card.compute_type],
        "trt_engine_cache_enable": "true",
        "trt_engine_cache_path": f"{options.engine_cache.rstrip('/')}/csg-{config.name}-{digest}",
    }
    if card.input.height and card.input.width:
        sides = f"{card.input.height}x{card.input.width}x3"
        for end, batch in (("min", 1), ("opt", config.max_batch_size), ("max", config.max_batch_size)):
            parameters[f"trt_profile_{end}_shapes"] = f"{card.input.name}:{batch}x{sides}"
    return ModelOptimizationPolicy.ExecutionAccelerators.Accelerator(name="tensorrt", parameters=parameters)


def card_of(config: ModelConfig, where: str) -> ModelCard:
    """Return the card that a configuration carries.

    Args:
        config: the configuration.
        where: where it comes from, for the error message.

    Raises:
        InputError: the card is malformed.
    """
    return parse_card(config.parameters[CARD_PARAMETER].string_value, where)


def add_golden(config: ModelConfig, golden: GoldenAnswers | None) -> None:
    """Let a configuration carry the golden answers of its bundle, if there are any."""
    if golden:
        config.parameters[GOLDEN_PARAMETER].string_value = golden.to_json()


def golden_of(config: ModelConfig, card: ModelCard, where: str) -> GoldenAnswers | None:
    """Return the golden answers that a configuration carries; None if it has none.

    Args:
        config: the configuration.
        card: the card that it carries.
        where: where it comes from, for the error message.

    Raises:
        InputError: they are malformed, or do not fit the card.
    """
    if GOLDEN_PARAMETER not in config.parameters:
        return None
    return parse_golden(config.parameters[GOLDEN_PARAMETER].string_value, card, where)


def repository_flags(repository: Path, tritonserver: Path) -> list[str]:
    """Return the flags that Triton needs for a repository's models: response cache and rate limiter."""
    found, flags = _configs(repository), []
    if any(config.response_cache.enable for config in found):
        caches = tritonserver.parent.parent / "caches"
        flags += [f"--cache-config=local,size={CACHE_BYTES}"]
        flags += [f"--cache-directory={caches}"] if caches.is_dir() else []
    if any(group.rate_limiter.resources for config in found for group in config.instance_group):
        flags.append("--rate-limit=execution_count")
    return flags


def needs_openvino(repository: Path) -> bool:
    """Return whether OpenVINO computes a model of a repository."""
    cards = (config.parameters[CARD_PARAMETER].string_value for config in _configs(repository))
    with suppress(InputError):
        return any(parse_card(card, str(repository)).runtime == "openvino" for card in cards if card)
    return False


def _configs(repository: Path) -> list[ModelConfig]:
    return [config for file in sorted(repository.glob(f"[!.]*/{CONFIG}")) if (config := read_config(file))]


def served_version(model_dir: Path) -> int:
    """Return the version that is served, which the configuration in a model's folder names.

    Raises:
        InputError: there is no configuration of csg.
    """
    config = read_config(model_dir / CONFIG)
    if config is None or not config.version_policy.specific.versions:
        raise InputError(f"{model_dir / CONFIG} names no version to serve", "repair it, or deploy under another name")
    return int(config.version_policy.specific.versions[0])


def add_before(config: ModelConfig, version: int | None) -> None:
    """Let a configuration name the version that is served now, if there is one."""
    if version is not None:
        config.parameters[BEFORE_PARAMETER].string_value = str(version)


def version_before(model_dir: Path, version: int) -> int | None:
    """Return the version that was served when a version was deployed; None if that is not known."""
    config = read_config(model_dir / str(version) / CONFIG)
    text = config.parameters[BEFORE_PARAMETER].string_value if config else ""
    return int(text) if text.isdecimal() else None


def config_text(config: ModelConfig) -> str:
    """Return a configuration as the text of `config.pbtxt`."""
    return str(text_format.MessageToString(config, as_utf8=True))


def read_config(path: Path) -> ModelConfig | None:
    """Return the configuration in a `config.pbtxt`; None if it is missing or malformed."""
    try:
        return text_format.Parse(path.read_text(), ModelConfig())
    except (OSError, UnicodeDecodeError, text_format.ParseError):
        return None
