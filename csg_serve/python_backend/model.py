"""Entry points of Triton's Python backend for a model of csg: runs the ONNX file beside it.

`csg deploy` copies this file with the others of `TENSOR_MODEL` into the version's folder. Triton imports it there as a
module of the package named like that folder; csg can't be imported.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

from .golden import GOLDEN_ARRAYS, check_answers, read_golden
from .scheduling import TUNING_VARIABLE, Instance, OpenSession, Run, Scheduler, SessionOptions
from .sessions import Graph, session_opener


class TritonPythonModel:
    """One instance of the model, in a separate process. Triton calls its methods by name."""

    def initialize(self, args: dict[str, str]) -> None:
        """Open the ONNX file of this version, and compare its answers with the golden ones."""
        config = json.loads(args["model_config"])
        card = json.loads(config["parameters"].get("csg_card", {}).get("string_value", "{}"))
        self.name = args["model_instance_name"]
        self.graph = Graph(
            path=Path(args["model_repository"], args["model_version"], "model.onnx"),
            input=config["input"][0]["name"],
            outputs=[output["name"] for output in config["output"]],
        )
        count = sum(group["count"] for group in config["instance_group"])
        cores = int(os.environ.get("CSG_THREADS") or len(os.sched_getaffinity(0)))
        share = max(1, cores // count)
        self._log(f"one of {count} instances, {share} threads")
        opener, on_cpu = session_opener(card, self.graph, args, self._log)
        open_session = self._checked(opener, config["max_batch_size"])
        self.run: Run
        if on_cpu:
            shape = tuple(int(side) for side in config["input"][0]["dims"])
            instance = Instance(self.graph.path, shape, config["max_batch_size"], cores=cores, share=share)
            self.run = Scheduler(open_session, instance, os.environ.get(TUNING_VARIABLE, "on"), self._log)
        else:
            self.run = open_session(SessionOptions(threads=share))

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests of one dynamic batch.

        Each request carries uint8 (n, H, W, 3); its response has every output's rows for those n images.
        """
        try:
            images = [pb_utils.get_input_tensor_by_name(request, self.graph.input).as_numpy() for request in requests]
            outputs = self.run(np.concatenate(images) if len(images) > 1 else images[0])
        except Exception as error:  # whatever it is, the requests get an answer and the server keeps running
            return [pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error))) for _ in requests]
        responses, start = [], 0
        for part in images:
            rows = [output[start : start + len(part)] for output in outputs]
            responses.append(pb_utils.InferenceResponse(list(map(pb_utils.Tensor, self.graph.outputs, rows))))
            start += len(part)
        return responses

    def finalize(self) -> None:
        """Log how the batches were computed."""
        if isinstance(self.run, Scheduler):
            runs = ", ".join(f"{count} {how}" for how, count in sorted(self.run.runs.items()))
            self._log(f"computed batches: {runs or 'none'}")

    def _checked(self, open_session: OpenSession, max_batch: int) -> OpenSession:
        """Return a function that opens sessions and refuses one whose answers differ from the golden ones."""
        golden = read_golden(self.graph.path.with_name(GOLDEN_ARRAYS))

        def open_checked(options: SessionOptions) -> Run:
            run = open_session(options)
            check_answers(lambda images: list(map(_received, run(_received(images)))), golden, max_batch)
            return run

        return open_checked

    def _log(self, line: str) -> None:
        pb_utils.Logger.log_info(f"{self.name}: {line}")


def _received(array: np.ndarray) -> np.ndarray:
    """Send an array through tensors of Triton, as requests do: if the server needs another numpy, its values change."""
    sent = pb_utils.Tensor("sent", array)
    received: np.ndarray = pb_utils.Tensor.from_dlpack("received", sent.to_dlpack()).as_numpy()
    return received
