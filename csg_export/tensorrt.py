"""Engines built from the graph: by TensorRT on a GPU, or by TensorRT-RTX ahead of time and without one; same API.

Networks are strongly typed: the types in the graph decide. An fp16 graph gives an fp16 engine, a QDQ graph an int8 one.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from csg.card import ClassificationInput, SegmentationInput
from csg.errors import InputError, UsageError, VerificationError, one_line
from csg.files import cache_dir
from csg.provenance import Engine, Format
from csg_export.formats import export_format
from csg_export.onnx_graph import INPUT, LABEL_MAP
from csg_export.timing_cache import load_timings, save_timings

WITHOUT_FP32_GEMM = ("7.5",)
"""Compute capabilities that TensorRT-RTX can't multiply float32 matrices on ("FP32 GEMM is not supported")."""
FREE_HEIGHTS, FREE_WIDTHS = (8, 512, 1024), (8, 1024, 2048)
"""Smallest, best and largest image of a segmenter whose graph takes any size."""
BATCHES, SEGMENTATION_BATCHES = (1, 8, 32), (1, 1, 4)
"""Smallest, best and largest batch."""
WORKSPACE_MIB = 2048

Shape = tuple[int, ...]


@dataclass(frozen=True)
class EngineOptions:
    """How an engine is built."""

    batch: tuple[int, int, int] | None = None
    """Smallest, best and largest batch; None: 1, 8 and 32, for segmenters 1, 1 and 4."""
    compute_capabilities: tuple[str, ...] = ()
    """GPUs to build for, such as "8.6"; TensorRT-RTX only. Empty: this machine's GPU or, without one, all that the
    library knows except `WITHOUT_FP32_GEMM`."""
    memory_mib: int = WORKSPACE_MIB
    """Limit of the builder's workspace."""
    portable: bool = False
    """Build a plan that newer versions of TensorRT and other GPUs from Ampere on load too, at some cost in speed."""


def engine_library(name: Format) -> Any:
    """Import the library that builds engines of a format.

    Raises:
        UsageError: the library is not installed, or it needs a GPU and there is none.
    """
    package = export_format(name).package
    assert package is not None
    other = "use --format tensorrt-rtx, which builds without a GPU, or --format onnx"
    try:
        trt = importlib.import_module(package)
    except ImportError:
        distribution = package.replace("_", "-")
        hint = f"install it on a machine with an NVIDIA GPU, or {other}"
        hint = hint if name == "tensorrt" else f"pip install {distribution}"
        raise UsageError(f"--format {name} needs the package {distribution}", hint) from None
    if name == "tensorrt" and not torch.cuda.is_available():
        raise UsageError("--format tensorrt needs an NVIDIA GPU, and none was found", other)
    return trt


def build_engine(
    model: bytes | str, name: Format, spec: ClassificationInput | SegmentationInput, options: EngineOptions
) -> tuple[bytes, Engine]:
    """Build an engine from an ONNX graph.

    Args:
        model: the serialised graph, or the path of its file.
        name: the format.
        spec: the graph's input.
        options: how to build it.

    Returns:
        The plan, and the engine's part of the model card.

    Raises:
        UsageError: the library is missing, or does not know a compute capability.
        InputError: the library can't parse or build the graph; the message names the nodes.
    """
    trt = engine_library(name)
    messages = _Messages(trt)
    builder = trt.Builder(messages.logger)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    parser = trt.OnnxParser(network, messages.logger)
    if not (parser.parse_from_file(model) if isinstance(model, str) else parser.parse(model)):
        raise InputError(f"{name} can't read the graph: {_parser_errors(parser)}", "use --format onnx")
    profile, config = _profile(spec, options.batch), builder.create_builder_config()
    shapes = builder.create_optimization_profile()
    shapes.set_shape(INPUT, *profile)
    config.add_optimization_profile(shapes)
    config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, options.memory_mib * 2**20)
    timings = _timings_file(trt) if name == "tensorrt" else None
    if timings:
        target = _configure_tensorrt(trt, config, options)
        load_timings(config, timings)
    else:
        target = _set_compute_capabilities(trt, config, options.compute_capabilities)
    plan = builder.build_serialized_network(network, config)
    if plan is None:
        hint = "raise --memory, lower --batch, or use --format onnx"
        raise InputError(f"{name} can't build the graph: {messages.errors()}", hint)
    if timings:
        save_timings(config, timings)
    engine = Engine(library=name, version=trt.__version__, target=target, profile=profile, portable=options.portable)
    return bytes(plan), engine


class _Messages:
    """The library's messages: errors are kept, the rest is dropped."""

    def __init__(self, trt: Any):
        kept: list[str] = []

        class Logger(trt.ILogger):  # type: ignore[misc,name-defined]
            def __init__(self) -> None:
                trt.ILogger.__init__(self)

            def log(self, severity: Any, message: str) -> None:
                if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                    kept.append(message)

        self.logger, self.kept = Logger(), kept

    def errors(self) -> str:
        return one_line("; ".join(self.kept[-3:]), 600) or "no reason given"


def _parser_errors(parser: Any) -> str:
    errors = [parser.get_error(number) for number in range(parser.num_errors)]
    return "; ".join(
        f"node {error.node_name() or error.node()} ({error.node_operator()}): {one_line(error.desc())}"
        for error in errors
    )


def _profile(
    spec: ClassificationInput | SegmentationInput, batch: tuple[int, int, int] | None
) -> tuple[Shape, Shape, Shape]:
    """Smallest, best and largest shape of the input."""
    batch = batch or (SEGMENTATION_BATCHES if isinstance(spec, SegmentationInput) else BATCHES)
    heights = (spec.height,) * 3 if spec.height else FREE_HEIGHTS
    widths = (spec.width,) * 3 if spec.width else FREE_WIDTHS
    smallest, best, largest = ((b, h, w, 3) for b, h, w in zip(batch, heights, widths, strict=True))
    return smallest, best, largest


def _configure_tensorrt(trt: Any, config: Any, options: EngineOptions) -> tuple[str, ...]:
    """Set the options that only TensorRT has; returns the GPU that it builds for."""
    if options.portable:
        config.set_flag(trt.BuilderFlag.VERSION_COMPATIBLE)
        config.hardware_compatibility_level = trt.HardwareCompatibilityLevel.AMPERE_PLUS
    return (torch.cuda.get_device_name(),)


def _set_compute_capabilities(trt: Any, config: Any, requested: Sequence[str]) -> tuple[str, ...]:
    """Set the compute capabilities that TensorRT-RTX builds for; returns them."""
    known = {f"{name[2:-1]}.{name[-1]}": name for name in trt.ComputeCapability.__members__ if name.startswith("SM")}
    if unknown := [one for one in requested if one not in known]:
        message = f"tensorrt-rtx {trt.__version__} has no compute capability {unknown[0]}"
        raise UsageError(message, f"use one of {', '.join(known)}")
    if not requested and torch.cuda.is_available():
        requested = tuple(one for one in (compute_capability(),) if one in known)
    chosen = tuple(requested) or tuple(one for one in known if one not in WITHOUT_FP32_GEMM)
    config.num_compute_capabilities = len(chosen)
    for index, one in enumerate(chosen):
        config.set_compute_capability(trt.ComputeCapability.__members__[known[one]], index)
    return chosen


def compute_capability() -> str:
    """The compute capability of this machine's GPU, such as "8.6"."""
    major, minor = torch.cuda.get_device_capability()
    return f"{major}.{minor}"


def _timings_file(trt: Any) -> Path:
    """The file for the timings of this library and GPU."""
    gpu = torch.cuda.get_device_name().replace(" ", "-").replace("/", "-")
    return cache_dir() / f"tensorrt-{trt.__version__}-{gpu}.timings"


def open_engine(plan: bytes, engine: Engine) -> Any:
    """Load a plan on this machine's GPU; returns the library's execution context.

    Raises:
        VerificationError: the library can't load it.
    """
    package = export_format(engine.library).package
    assert package is not None
    trt = importlib.import_module(package)
    messages = _Messages(trt)
    loaded = trt.Runtime(messages.logger).deserialize_cuda_engine(plan)
    if loaded is None:
        raise VerificationError(
            f"{engine.library} built an engine that it can't load: {messages.errors()}",
            "use --format onnx, or another version of the library",
        )
    return loaded.create_execution_context()


def run_engine(context: Any, images_BHW3: np.ndarray, names: Sequence[str]) -> dict[str, np.ndarray]:
    """Run an engine once: its outputs, by name, for these images.

    Args:
        names: all inputs and outputs of the engine.
    """
    tensors = {INPUT: torch.from_numpy(np.ascontiguousarray(images_BHW3)).cuda()}
    context.set_input_shape(INPUT, tuple(images_BHW3.shape))
    for name in names:
        if name != INPUT:
            dtype = torch.uint8 if name == LABEL_MAP else torch.float32
            tensors[name] = torch.empty(tuple(context.get_tensor_shape(name)), dtype=dtype, device="cuda")
        context.set_tensor_address(name, tensors[name].data_ptr())
    context.execute_async_v3(torch.cuda.current_stream().cuda_stream)
    torch.cuda.synchronize()
    return {name: tensor.cpu().numpy() for name, tensor in tensors.items()}
