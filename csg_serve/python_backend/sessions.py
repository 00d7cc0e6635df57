"""Sessions of ONNX Runtime and OpenVINO for the ONNX file of a model.

`csg deploy` copies this file beside model.py, where csg can't be imported: it stands alone.
"""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any

import numpy as np

from .scheduling import OpenSession, Run, SessionOptions
from .widening import WideGraph, widen

CPU = "CPUExecutionProvider"
OPENVINO_TYPES = {"fp32": "f32", "fp16": "f16", "bf16": "bf16", "int8": "f32"}
"""INFERENCE_PRECISION_HINT by the card's compute type."""


@dataclass(frozen=True)
class Graph:
    """An ONNX file, and the names of its input and outputs."""

    path: Path
    """The file."""

    input: str
    """Name of the input, uint8 (N, H, W, 3)."""

    outputs: list[str]
    """Names of the outputs, in the order in which a run returns them."""


def session_opener(
    card: dict[str, Any], graph: Graph, args: dict[str, str], log: Callable[[str], None]
) -> tuple[OpenSession, bool]:
    """Return the function that opens sessions of the card's runtime, and whether they compute on the CPU.

    On a CPU, an fp16 graph is computed in fp32.

    Args:
        card: the model card.
        graph: what the sessions compute.
        args: of Triton's `initialize`: the kind and the device of the instance.
        log: writes a line to the server's log.

    Raises:
        RuntimeError: the card names an unknown runtime, or the instance needs a GPU and there is none.
    """
    runtime = card.get("runtime", "onnxruntime")
    if runtime == "openvino":
        return _openvino(OPENVINO_TYPES[card["compute_type"]], graph), True
    if runtime == "onnxruntime":
        import onnxruntime

        providers = _providers(onnxruntime, args["model_instance_kind"], args["model_instance_device_id"])
        on_cpu = providers == [CPU]
        wide = _wide(graph, log) if on_cpu and card.get("compute_type") == "fp16" else None
        return _onnxruntime(onnxruntime, graph, providers, wide), on_cpu
    raise RuntimeError(f"the model card names an unknown runtime: {runtime}")


def _wide(graph: Graph, log: Callable[[str], None]) -> WideGraph | None:
    """Return the graph in fp32; None if the server's Python can't make it."""
    try:
        wide = widen(graph.path)
    except ImportError:
        log("fp16 is computed with casts to fp32, slower than an fp32 bundle: this Python has no package onnx")
        return None
    log("fp16 is computed in fp32 on this CPU")
    return wide


def _onnxruntime(onnxruntime: Any, graph: Graph, providers: list[Any], wide: WideGraph | None) -> OpenSession:
    weights = wide.weights if wide else {}

    def open_session(options: SessionOptions) -> Run:
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = options.threads
        if options.spinning is not None:
            settings.add_session_config_entry("session.intra_op.allow_spinning", str(int(options.spinning)))
            settings.add_session_config_entry("session.force_spinning_stop", "1")  # between runs
        values = [onnxruntime.OrtValue.ortvalue_from_numpy(array) for array in weights.values()]
        settings.add_external_initializers(list(weights), values)
        session = onnxruntime.InferenceSession(wide.model if wide else graph.path, settings, providers=providers)
        return partial(_run, session, graph, values)

    return open_session


def _run(session: Any, graph: Graph, _weights: list[Any], images: np.ndarray) -> list[np.ndarray]:
    """Compute a batch; `_weights` stay in memory with the session, which does not copy them."""
    outputs: list[np.ndarray] = session.run(graph.outputs, {graph.input: images})
    return outputs


def _openvino(hint: str, graph: Graph) -> OpenSession:
    try:
        import openvino
    except ModuleNotFoundError:
        advice = "stop it, deploy, and start it with `csg serve`, which installs OpenVINO"
        raise RuntimeError(f"the server's environment has no OpenVINO: {advice}") from None

    def open_session(options: SessionOptions) -> Run:
        settings = {
            "INFERENCE_PRECISION_HINT": hint,
            "INFERENCE_NUM_THREADS": options.threads * options.streams,
            "NUM_STREAMS": options.streams,
            "ENABLE_CPU_PINNING": False,  # all instances would be pinned to the same cores
        }
        compiled, idle = openvino.Core().compile_model(graph.path, "CPU", settings), SimpleQueue[Any]()
        for _ in range(options.streams):
            idle.put(compiled.create_infer_request())

        def run(images: np.ndarray) -> list[np.ndarray]:
            request = idle.get()
            try:
                answers = request.infer({graph.input: images})  # copies
                return [answers[name] for name in graph.outputs]
            finally:
                idle.put(request)

        return run

    return open_session


def _providers(onnxruntime: Any, kind: str, device: str) -> list[Any]:
    """Return ONNX Runtime's execution providers for an instance.

    CUDA comes first where this ONNX Runtime was built with it and a device answers, unless the instance group says CPU.

    Raises:
        RuntimeError: the instance group says GPU, and there is none.
    """
    cuda = "CUDAExecutionProvider" in onnxruntime.get_available_providers() and has_gpu()
    if kind == "GPU" and not cuda:
        raise RuntimeError("this ONNX Runtime finds no GPU")
    if kind == "CPU" or not cuda:
        return [CPU]
    onnxruntime.preload_dlls()  # finds cuDNN and cuBLAS that pip installed
    return [("CUDAExecutionProvider", {"device_id": device} if kind == "GPU" else {}), CPU]


def has_gpu() -> bool:
    """Return whether this machine has an NVIDIA GPU."""
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
    except OSError:
        return False
