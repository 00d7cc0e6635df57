"""Engines: an ONNX graph built by TensorRT, or ahead of time and without a GPU by TensorRT-RTX, whose API is the same.

Networks are strongly typed: the graph's own types decide, so an fp16 engine comes of an fp16 graph, an int8 one of QDQ.
"""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from csg.card import ClassificationInput, Engine, Format, SegmentationInput
from csg.console import log
from csg.errors import InputError, UsageError
from csg.files import atomic_write, cache_dir
from csg_export.onnx_graph import EMBEDDING, INPUT, LABEL_MAP
from csg_export.parity import Answers, Runner, rows

PACKAGES: dict[Format, str] = {"tensorrt": "tensorrt", "tensorrt-rtx": "tensorrt_rtx"}
NO_FP32 = ("7.5",)  # "FP32 GEMM is not supported", says TensorRT-RTX of Turing
# Least, best and largest side of a segmenter's images where the graph leaves them free.
FREE_HEIGHTS, FREE_WIDTHS = (8, 512, 1024), (8, 1024, 2048)
BATCHES, SCENE_BATCHES = (1, 8, 32), (1, 1, 4)


@dataclass(frozen=True)
class EngineOptions:
    """How an engine is built.

    batch: least, best and largest; None: 1, 8 and 32, of scenes 1, 1 and 4. targets: compute capabilities such as
    "8.6", of TensorRT-RTX; none: this machine's GPU, or where there is none, all that the library knows and that
    multiply matrices of float32. memory_mib: limit of the builder's workspace. portable: TensorRT's plan for newer
    versions and other GPUs too, where it is slower.
    """

    batch: tuple[int, int, int] | None = None
    targets: tuple[str, ...] = ()
    memory_mib: int = 2048
    portable: bool = False


def library(kind: Format) -> Any:
    """The library's module.

    Raises:
        UsageError: it is not installed, or needs a GPU and there is none.
    """
    other = "take --format tensorrt-rtx, which builds anywhere, or --format onnx"
    try:
        trt = importlib.import_module(PACKAGES[kind])
    except ImportError:
        name = PACKAGES[kind].replace("_", "-")
        hint = f"install it where there is an NVIDIA GPU, or {other}" if kind == "tensorrt" else f"pip install {name}"
        raise UsageError(f"--format {kind} needs the package {name}", hint) from None
    if kind == "tensorrt" and not torch.cuda.is_available():
        raise UsageError("--format tensorrt needs an NVIDIA GPU, and none answers here", other)
    return trt


def build_engine(
    model: bytes, kind: Format, spec: ClassificationInput | SegmentationInput, options: EngineOptions
) -> tuple[bytes, Engine]:
    """The plan, and what the card says of it.

    Raises:
        UsageError: the library is missing, or does not know a compute capability.
        InputError: the library can't parse or build the graph; the line names the nodes.
    """
    trt = library(kind)
    builder_log = _Log(trt)
    builder = trt.Builder(builder_log.logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, builder_log.logger)
    if not parser.parse(model):
        raise InputError(f"{kind} can't take the graph: {_parser_errors(parser)}", "take --format onnx")
    profile, config = _profile(spec, options.batch), builder.create_builder_config()
    shapes = builder.create_optimization_profile()
    shapes.set_shape(INPUT, *profile)
    config.add_optimization_profile(shapes)
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.memory_mib * 2**20)
    timings = None
    if kind == "tensorrt-rtx":
        targets = _set_targets(trt, config, options.targets)
    else:
        targets = (torch.cuda.get_device_name(),)
        timings = _timing_cache(trt, config)
        if options.portable:
            config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
            config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        raise InputError(
            f"{kind} can't build the graph: {builder_log.errors()}",
            "give it more --memory or a smaller --batch, or take --format onnx",
        )
    if timings:
        atomic_write(timings, bytes(config.get_timing_cache().serialize()))
    engine = Engine(library=kind, version=trt.__version__, target=targets, profile=profile, portable=options.portable)
    return bytes(plan), engine


class _Log:
    """The library's messages: errors are kept, the rest is dropped."""

    def __init__(self, trt: Any):
        kept: list[str] = []

        class Logger(trt.ILogger):  # type: ignore[misc,name-defined]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                    kept.append(" ".join(message.split()))

        self.logger, self.kept = Logger(), kept

    def errors(self) -> str:
        return "; ".join(self.kept[-3:])[:600] or "no reason given"


def _parser_errors(parser: Any) -> str:
    errors = [parser.get_error(number) for number in range(parser.num_errors)]
    return "; ".join(
        f"node {error.node_name() or error.node()} ({error.node_operator()}): {' '.join(error.desc().split())[:300]}"
        for error in errors
    )


def _profile(
    spec: ClassificationInput | SegmentationInput, batch: tuple[int, int, int] | None
) -> tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]:
    """Least, best and largest shape of the input."""
    batch = batch or (SCENE_BATCHES if isinstance(spec, SegmentationInput) else BATCHES)
    heights = (spec.height,) * 3 if spec.height else FREE_HEIGHTS
    widths = (spec.width,) * 3 if spec.width else FREE_WIDTHS
    least, best, largest = ((b, h, w, 3) for b, h, w in zip(batch, heights, widths, strict=True))
    return least, best, largest


def _set_targets(trt: Any, config: Any, wanted: tuple[str, ...]) -> tuple[str, ...]:
    """Name the compute capabilities that the engine is for."""
    known = {f"{name[2:-1]}.{name[-1]}": name for name in trt.ComputeCapability.__members__ if name.startswith("SM")}
    if unknown := [target for target in wanted if target not in known]:
        what = f"tensorrt-rtx {trt.__version__} knows no compute capability {unknown[0]}"
        raise UsageError(what, f"take {', '.join(known)}")
    if not wanted and torch.cuda.is_available():
        major, minor = torch.cuda.get_device_capability()
        wanted = tuple(target for target in (f"{major}.{minor}",) if target in known)
    chosen = wanted or tuple(target for target in known if target not in NO_FP32)
    config.num_compute_capabilities = len(chosen)
    for place, target in enumerate(chosen):
        config.set_compute_capability(trt.ComputeCapability.__members__[known[target]], place)
    return chosen


def _timing_cache(trt: Any, config: Any) -> Path:
    """Let the builder start from timings of earlier builds with this library on this GPU; where to keep them."""
    gpu = torch.cuda.get_device_name().replace(" ", "-").replace("/", "-")
    path = cache_dir() / f"tensorrt-{trt.__version__}-{gpu}.timing"
    config.set_timing_cache(config.create_timing_cache(path.read_bytes() if path.is_file() else b""), False)
    return path


def of_engine(plan: bytes, engine: Engine) -> Runner | None:
    """The engine as a stage of the comparison, with its logits; None where no GPU answers that could run it."""
    if not torch.cuda.is_available():
        log(f"the {engine.library} engine was built and not run: no GPU answers here")
        return None
    trt = importlib.import_module(PACKAGES[engine.library])
    runtime = trt.Runtime(_Log(trt).logger)
    context = runtime.deserialize_cuda_engine(plan).create_execution_context()
    names = [context.engine.get_tensor_name(place) for place in range(context.engine.num_io_tensors)]
    outputs = [name for name in names if name not in (INPUT, EMBEDDING)]
    if outputs == [LABEL_MAP]:
        log(f"the {engine.library} engine was not compared: it returns label maps alone; --logits lets it be")
        return None
    largest = engine.profile[2][0]

    def run(images: np.ndarray) -> Answers:
        parts = [_execute(context, images[at : at + largest], names) for at in range(0, len(images), largest)]
        answers = {name: np.concatenate([part[name] for part in parts]) for name in outputs}
        logits = rows(next(found for name, found in answers.items() if name != LABEL_MAP))
        return logits, answers[LABEL_MAP].ravel() if LABEL_MAP in answers else logits.argmax(1)

    return run


def _execute(context: Any, images: np.ndarray, names: list[str]) -> dict[str, np.ndarray]:
    """One run on the GPU: every output of the engine for these images."""
    tensors = {INPUT: torch.from_numpy(np.ascontiguousarray(images)).cuda()}
    context.set_input_shape(INPUT, tuple(images.shape))
    for name in names:
        if name != INPUT:
            kind = torch.uint8 if name == LABEL_MAP else torch.float32
            tensors[name] = torch.empty(tuple(context.get_tensor_shape(name)), dtype=kind, device="cuda")
        context.set_tensor_address(name, tensors[name].data_ptr())
    context.execute_async_v3(torch.cuda.current_stream().cuda_stream)
    torch.cuda.synchronize()
    return {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
