"""Runs the ONNX file beside it inside Triton's Python backend: with ONNX Runtime, or a bf16 bundle's with OpenVINO.

`csg deploy` copies this file into the model's version folder, where csg can't be imported: it stands alone.
"""

from __future__ import annotations

import ctypes
import json
import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

Run = Callable[[np.ndarray], list[np.ndarray]]


class TritonPythonModel:
    """One instance of the model; Triton calls these methods by name."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the ONNX file of this version."""
        config = json.loads(args["model_config"])
        self.input: str = config["input"][0]["name"]
        self.outputs: list[str] = [output["name"] for output in config["output"]]
        card = json.loads(config["parameters"].get("csg_card", {}).get("string_value", "{}"))
        model = Path(args["model_repository"], args["model_version"], "model.onnx")
        open_model = _openvino if card.get("precision") == "bf16" else partial(_onnxruntime, args)
        self.run = open_model(model, self.input, self.outputs, len(os.sched_getaffinity(0)))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests of one dynamic batch with one run of the graph.

        Each request carries uint8 (n, H, W, 3); its response, every output's rows for those n images.
        """
        try:
            images = [pb_utils.get_input_tensor_by_name(request, self.input).as_numpy() for request in requests]
            outputs = self.run(np.concatenate(images) if len(images) > 1 else images[0])
        except Exception as error:  # whatever it was, the requests get an answer and the server goes on
            return [pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error))) for _ in requests]
        ends = np.cumsum([len(part) for part in images])[:-1]
        parts = zip(*(np.split(output, ends) for output in outputs), strict=True)
        return [pb_utils.InferenceResponse(list(map(pb_utils.Tensor, self.outputs, part))) for part in parts]


def _onnxruntime(args: dict[str, str], model: Path, image: str, outputs: list[str], threads: int) -> Run:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")  # the server needs the same cores
    session = onnxruntime.InferenceSession(model, options, providers=_providers(onnxruntime, args))
    return lambda images: session.run(outputs, {image: images})


def _openvino(model: Path, image: str, outputs: list[str], threads: int) -> Run:
    import openvino

    settings = {"INFERENCE_PRECISION_HINT": "bf16", "INFERENCE_NUM_THREADS": threads}
    compiled = openvino.Core().compile_model(model, "CPU", settings)

    def run(images: np.ndarray) -> list[np.ndarray]:
        answers = compiled({image: images})
        return [answers[name] for name in outputs]

    return run


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
