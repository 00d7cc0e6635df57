"""Runs the ONNX file beside it inside Triton's Python backend: with ONNX Runtime, or a bf16 bundle's with OpenVINO.

`csg deploy` copies this file into the model's version folder, where csg can't be imported: it stands alone.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import math
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path
from queue import SimpleQueue
from typing import Any, BinaryIO

import numpy as np
import triton_python_backend_utils as pb_utils

CALM = 8  # runs
PARTS, ROUNDS, MEASURE_S = (1, 2, 4, 8, 16), 4, 2.0

Run = Callable[[np.ndarray], list[np.ndarray]]
Opened = Callable[..., Run]  # threads, callers at the same time, whether threads spin within a run


class TritonPythonModel:
    """One instance of the model; Triton calls these methods by name."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the ONNX file of this version."""
        config = json.loads(args["model_config"])
        self.input: str = config["input"][0]["name"]
        self.outputs: list[str] = [output["name"] for output in config["output"]]
        card = json.loads(config["parameters"].get("csg_card", {}).get("string_value", "{}"))
        model = Path(args["model_repository"], args["model_version"], "model.onnx")
        instances = sum(group["count"] for group in config["instance_group"])
        cores = int(os.environ.get("CSG_THREADS") or len(os.sched_getaffinity(0)))
        threads = max(1, cores // instances)
        pb_utils.Logger.log_info(f"{args['model_instance_name']}: one of {instances} instances, {threads} threads")
        sides = [int(side) for side in config["input"][0]["dims"]]
        engine = _openvino if card.get("precision") == "bf16" else _onnxruntime
        opened, on_cpu = engine(args, model, self.input, self.outputs)
        if on_cpu and min(sides) > 0:
            self.run = _shared_out(opened, model, sides, config["max_batch_size"], threads, cores)
        else:
            self.run = opened(threads)

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests of one dynamic batch with one run of the graph.

        Each request carries uint8 (n, H, W, 3); its response, every output's rows for those n images.
        """
        try:
            images = [pb_utils.get_input_tensor_by_name(request, self.input).as_numpy() for request in requests]
            outputs = self.run(np.concatenate(images) if len(images) > 1 else images[0])
        except Exception as error:  # whatever it was, the requests get an answer and the server goes on
            return [pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error))) for _ in requests]
        responses, start = [], 0
        for part in images:
            rows = [output[start : start + len(part)] for output in outputs]
            responses.append(pb_utils.InferenceResponse(list(map(pb_utils.Tensor, self.outputs, rows))))
            start += len(part)
        return responses


def _shared_out(opened: Opened, model: Path, sides: list[int], most: int, threads: int, cores: int) -> Run:
    """A batch's images in parts of the best size, each thread with parts of its own; or all cores on a single image.

    The latter where no other instance of the version was at work lately, which the file `model` is locked for.
    """
    part = _best_part(opened(1), sides, most)  # a session keeps the memory of its largest run: this one is given up
    alone = opened(1, callers=threads)
    together = opened(cores, spinning=True) if cores > 1 else alone
    side_by_side = ThreadPoolExecutor(threads).map if threads > 1 else map
    lock, lately = model.open("rb"), deque([True], CALM)

    def run(images: np.ndarray) -> list[np.ndarray]:
        with _at_work(lock) as only_one:
            lately.append(only_one)
            if all(lately) and len(images) < cores:
                return together(images)
            size = min(part, math.ceil(len(images) / threads))
            found = list(side_by_side(alone, (images[start : start + size] for start in range(0, len(images), size))))
        return found[0] if len(found) == 1 else [np.concatenate(rows) for rows in zip(*found, strict=True)]

    return run


@contextmanager
def _at_work(lock: BinaryIO) -> Iterator[bool]:
    """Whether no other instance of this version is at work: each has a shared lock on the ONNX file while it is.

    An instance that has had the machine for itself computes few images with all cores on each operation; else each
    thread computes images of its own, and none waits for another.
    """
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        only_one = True
    except OSError:
        only_one = False
    with suppress(OSError):  # a file system without locks
        fcntl.flock(lock, fcntl.LOCK_SH)
    try:
        yield only_one
    finally:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_UN)


def _best_part(alone: Run, sides: list[int], most: int) -> int:
    """How many images one thread takes at once with the least work, measured for a moment.

    A network whose maps fall out of the caches (MobileNetV2) wants few, one with many weights (ResNet-50) many. What
    counts is the time of the cores, which others' work there does not change.
    """
    sizes = [size for size in PARTS if size <= most]
    best = dict.fromkeys(sizes, float("inf"))
    began = time.perf_counter()
    for size in sizes * ROUNDS:
        if time.perf_counter() - began > MEASURE_S:
            break
        started = time.process_time()
        alone(np.zeros((size, *sides), np.uint8))
        best[size] = min(best[size], (time.process_time() - started) / size)
    measured = [size for size in sizes if best[size] < float("inf")]
    fastest = min(measured, key=lambda size: best[size])
    work = ", ".join(f"{size}: {best[size] * 1e3:.2f} ms" for size in measured)
    pb_utils.Logger.log_info(f"images at once: {fastest} (work for an image, by images at once: {work})")
    return most if fastest == max(measured) else fastest


def _onnxruntime(args: dict[str, str], model: Path, image: str, outputs: list[str]) -> tuple[Opened, bool]:
    """What opens sessions of ONNX Runtime, and whether they run on the CPU."""
    import onnxruntime

    providers = _providers(onnxruntime, args)

    def opened(threads: int, callers: int = 1, spinning: bool = False) -> Run:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spinning)))
        options.add_session_config_entry("session.force_spinning_stop", "1")  # between runs others need the cores
        session = onnxruntime.InferenceSession(model, options, providers=providers)
        return lambda images: session.run(outputs, {image: images})  # type: ignore[no-any-return]

    return opened, providers[0] == "CPUExecutionProvider"


def _openvino(args: dict[str, str], model: Path, image: str, outputs: list[str]) -> tuple[Opened, bool]:
    """What compiles the graph for bf16, and that it runs on the CPU. Its threads wait as they see fit."""
    import openvino

    def opened(threads: int, callers: int = 1, spinning: bool = False) -> Run:
        settings = {"INFERENCE_PRECISION_HINT": "bf16", "ENABLE_CPU_PINNING": False}  # all instances would pin one core
        settings |= {"INFERENCE_NUM_THREADS": threads * callers, "NUM_STREAMS": callers}
        compiled, idle = openvino.Core().compile_model(model, "CPU", settings), SimpleQueue[Any]()
        for _ in range(callers):
            idle.put(compiled.create_infer_request())

        def run(images: np.ndarray) -> list[np.ndarray]:
            request = idle.get()
            try:
                answers = request.infer({image: images})  # copies
                return [answers[name] for name in outputs]
            finally:
                idle.put(request)

        return run

    return opened, True


def _providers(onnxruntime: Any, args: dict[str, str]) -> list[Any]:
    """CUDA where this ONNX Runtime was built for it and a device answers, then the CPU; or as the instance group says.

    Raises:
        RuntimeError: it says a GPU, and there is none.
    """
    kind, cpu = args["model_instance_kind"], "CPUExecutionProvider"
    found = "CUDAExecutionProvider" in onnxruntime.get_available_providers() and _cuda_device()
    if kind == "GPU" and not found:
        raise RuntimeError("this ONNX Runtime finds no GPU")
    if kind == "CPU" or not found:
        return [cpu]
    onnxruntime.preload_dlls()  # finds cuDNN and cuBLAS where pip installed them
    return [("CUDAExecutionProvider", {"device_id": args["model_instance_device_id"]} if kind == "GPU" else {}), cpu]


def _cuda_device() -> bool:
    count = ctypes.c_int(0)
    try:
        driver = ctypes.CDLL("libcuda.so.1")
        return driver.cuInit(0) == 0 and driver.cuDeviceGetCount(ctypes.byref(count)) == 0 and count.value > 0
    except OSError:
        return False
