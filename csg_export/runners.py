"""Runners: a network, an ONNX graph or an engine behind one call.

Shape letters: B images; H, W pixels; K classes; N images, of a segmenter pixels.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import onnxruntime as ort
import torch
from onnx import ModelProto
from torch import nn

from csg.card import ComputeType, Runtime
from csg.console import log
from csg.errors import UsageError
from csg.extras import install_command
from csg.provenance import Engine
from csg_export.external_weights import loadable, weights_folder
from csg_export.onnx_graph import EMBEDDING, INPUT, LABEL_MAP, LOGITS
from csg_export.tensorrt import compute_capability, open_engine, run_engine
from csg_train.tasks import Predict, Prediction

ERRORS_ONLY = 3
"""Severity from which ONNX Runtime writes to the terminal; it warns of fp16 constants that no CPU kernel adds up."""
OPENVINO_TYPES: dict[ComputeType, str] = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"}


@dataclass(frozen=True)
class Predictions:
    """What a network predicts for a batch of images."""

    logits: np.ndarray
    """Float (B, K), of a segmenter (B, K, H, W)."""
    label_map: np.ndarray | None = None
    """The class of each pixel, uint8 (B, H, W), if the graph returns it."""

    @cached_property
    def logits_NK(self) -> np.ndarray:
        """A row for each image or pixel."""
        return np.moveaxis(self.logits, 1, -1).reshape(-1, self.logits.shape[1])

    @cached_property
    def classes_N(self) -> np.ndarray:
        """Index of the predicted class of each image or pixel."""
        return self.logits_NK.argmax(1) if self.label_map is None else self.label_map.ravel()


Runner = Callable[[np.ndarray], Predictions]
"""From prepared images, uint8 (B, H, W, 3), to predictions."""


def torch_runner(network: nn.Module) -> Runner:
    """Run a PyTorch network that takes uint8 (B, H, W, 3)."""

    @torch.inference_mode()
    def run(images_BHW3: np.ndarray) -> Predictions:
        return Predictions(network(torch.from_numpy(images_BHW3)).numpy())

    return run


def onnx_runner(model: ModelProto, compute_type: ComputeType = "fp32") -> Runner:
    """Run a graph in ONNX Runtime on the CPU; the graph's own types decide the arithmetic, not `compute_type`.

    A graph whose weights are in files is opened for each batch anew, so that several of them never are in memory.
    """
    if weights_folder(model):
        return lambda images_BHW3: _in_session(_open_session(model), images_BHW3)
    session = _open_session(model)
    return lambda images_BHW3: _in_session(session, images_BHW3)


def _open_session(model: ModelProto) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = ERRORS_ONLY
    if weights_folder(model):
        options.add_session_config_entry("session.disable_prepacking", "1")  # which copies the weights
    return ort.InferenceSession(loadable(model), options, providers=["CPUExecutionProvider"])


def _in_session(session: ort.InferenceSession, images_BHW3: np.ndarray) -> Predictions:
    names = [output.name for output in session.get_outputs() if output.name != EMBEDDING]
    return _predictions(dict(zip(names, session.run(names, {INPUT: images_BHW3}), strict=True)))


def openvino_runner(model: ModelProto, compute_type: ComputeType) -> Runner:
    """Run a graph in OpenVINO on the CPU, with arithmetic in `compute_type` where the CPU has it.

    Raises:
        UsageError: OpenVINO is not installed.
    """
    try:
        import openvino
    except ImportError:
        raise UsageError("this precision needs the package openvino", install_command("openvino")) from None
    core = openvino.Core()
    settings = {"INFERENCE_PRECISION_HINT": OPENVINO_TYPES[compute_type]}
    compiled = core.compile_model(core.read_model(loadable(model)), "CPU", settings)
    names = [output.get_any_name() for output in compiled.outputs]

    def run(images_BHW3: np.ndarray) -> Predictions:
        return _predictions(dict(zip(names, compiled([images_BHW3]).values(), strict=True)))

    return run


RUNNERS: dict[Runtime, Callable[[ModelProto, ComputeType], Runner]] = {
    "onnxruntime": onnx_runner,
    "openvino": openvino_runner,
}
"""How the graph of each runtime of the model card is run."""


def tensorrt_runner(plan: bytes, engine: Engine) -> Runner | None:
    """Run an engine on this machine's GPU; None without one that it is built for, or if it returns no logits."""
    if not torch.cuda.is_available():
        log(f"the {engine.library} engine was built but not run: no GPU found")
        return None
    if engine.library == "tensorrt-rtx" and compute_capability() not in engine.target:
        gpu = f"{torch.cuda.get_device_name()} has compute capability {compute_capability()}"
        log(f"the {engine.library} engine was built but not run: {gpu}, the engine is for {', '.join(engine.target)}")
        return None
    context = open_engine(plan, engine)
    names = [context.engine.get_tensor_name(index) for index in range(context.engine.num_io_tensors)]
    outputs = [name for name in names if name not in (INPUT, EMBEDDING)]
    if LOGITS not in outputs:
        log(f"the {engine.library} engine was not compared: it returns label maps only; export with --logits")
        return None
    max_batch = engine.profile[2][0]

    def run(images_BHW3: np.ndarray) -> Predictions:
        starts = range(0, len(images_BHW3), max_batch)
        parts = [run_engine(context, images_BHW3[start : start + max_batch], names) for start in starts]
        return _predictions({name: np.concatenate([part[name] for part in parts]) for name in outputs})

    return run


def predict_with(run: Runner) -> Predict:
    """The same predictions as tensors, for the measurement of accuracy or mIoU."""
    return lambda images: Prediction(torch.from_numpy(run(images.numpy()).logits))


def _predictions(outputs: dict[str, np.ndarray]) -> Predictions:
    """Predictions from the outputs of a graph."""
    return Predictions(outputs[LOGITS], outputs.get(LABEL_MAP))
