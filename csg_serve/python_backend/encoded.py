"""Entry points of Triton's Python backend for `<name>_encoded`: image files in, the tensor model's outputs out.

`csg deploy` copies this file into a version folder of `<name>_encoded`, as model.py. Next to it are a folder for the
version of the tensor model with the same number, and one for the version that was served before it. Each holds what
belongs to that version: `served.json`, and the `csg/images.py` that prepares its pixels. Each version folder of the
tensor model has the same as `preprocessing`. So whichever of the two models a server switches first, no request fails,
and none gets the pixels of another version.

Shape letters: N images of a batch, H W of the tensor model's input.
"""

from __future__ import annotations

import importlib
import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import triton_python_backend_utils as pb_utils

SWITCH_S = 2.0
"""Seconds to wait for a version of the tensor model while the server switches it."""

MAX_THREADS = 8
"""Images decoded at the same time; together they take at most the bytes of `csg.image_budget`."""

sys.dont_write_bytecode = True  # a polling server loads a model again when a file appears in its folder

Restore = Callable[[np.ndarray], np.ndarray]
"""Turns an output's row into the answer for the image in its own size."""

Answer = dict[str, np.ndarray] | Exception
"""Each output's row for one image, or why there is none."""


class TritonPythonModel:
    """One instance of the model, in a separate process. Triton calls its methods by name."""

    def initialize(self, args: dict[str, str]) -> None:
        """Load the preprocessing of the tensor model's version with the same number."""
        self.model: str = json.loads(args["model_config"])["parameters"]["csg_encoded_for"]["string_value"]
        self.folder = Path(args["model_repository"], args["model_version"])
        self.tensor_model = Path(args["model_repository"]).parent / self.model
        threads = int(os.environ.get("CSG_THREADS") or len(os.sched_getaffinity(0)))
        self.pool = ThreadPoolExecutor(min(threads, MAX_THREADS))
        self.version = Version(self.model, args["model_version"], self.folder / args["model_version"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests of one dynamic batch.

        Each request carries image files, bytes (n, 1). Its response has every output's rows for those n images, and
        `error`, bytes (n, 1): why an image has no answer, or an empty string. Rows without an answer are 0, label maps
        without one 255. A request with no readable image is answered with an error.
        """
        parts = [pb_utils.get_input_tensor_by_name(request, "encoded").as_numpy().ravel() for request in requests]
        names = [str(index) for part in parts for index in range(len(part))]
        try:
            answers = iter(self._answer(list(np.concatenate(parts)), names))
            return [_response([next(answers) for _ in part]) for part in parts]
        except Exception as error:  # whatever it is, the requests get an answer and the server keeps running
            return [pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error))) for _ in requests]

    def _answer(self, files: list[bytes], names: list[str]) -> list[Answer]:
        """Return the answer for each image; from another version if the server switches while images are prepared.

        A polling Triton reports a model as not ready for a moment when anything in its folder has changed.
        """
        deadline = time.monotonic() + SWITCH_S
        while True:
            try:
                return self._served().answer(files, names, self.pool)
            except (NotServedError, OSError):  # OSError: the folder of a version that was just removed
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def _served(self) -> Version:
        """Return the version that the server has: the last one, or after a switch another one."""
        if not pb_utils.is_model_ready(self.model, self.version.number):
            for number, folder in self._preprocessings().items():
                if pb_utils.is_model_ready(self.model, number):
                    self.version = Version(self.model, number, folder)
                    break
        return self.version

    def _preprocessings(self) -> dict[str, Path]:
        """Return the folders with a version's preprocessing, by its number.

        A server that copies each model from a storage service has only those beside this file.
        """
        found = {folder.parent.name: folder for folder in self.tensor_model.glob("[0-9]*/preprocessing")}
        return found | {folder.name: folder for folder in self.folder.glob("[0-9]*")}


class NotServedError(Exception):
    """The server does not have this version of the tensor model."""


class Version:
    """A version of the tensor model, with its own preprocessing."""

    def __init__(self, model: str, number: str, folder: Path):
        """Load what prepares the pixels of a version.

        Args:
            model: name of the tensor model.
            number: its version.
            folder: the version's preprocessing.
        """
        self.model, self.number = model, number
        served = json.loads((folder / "served.json").read_text())
        self.images, card_module = _csg(folder)
        card = card_module.parse_card(json.dumps(served["card"]), str(folder))
        self.spec, self.max_batch, self.formats = card.input, served["max_batch_size"], served.get("formats")
        self.segments = card.task == "segmentation"
        self.outputs = [output.name for output in card.outputs][: 1 if self.segments else None]

    def answer(self, files: list[bytes], names: list[str], pool: ThreadPoolExecutor) -> list[Answer]:
        """Return the answer for each image.

        Args:
            files: the image files.
            names: what to call them in error messages.
            pool: threads that decode.

        Raises:
            NotServedError: the server does not have this version.
        """
        prepared = list(pool.map(self._prepare, files, names))
        answers: dict[int, Answer] = {index: one for index, one in enumerate(prepared) if isinstance(one, Exception)}
        by_shape = defaultdict(list)
        for index, one in enumerate(prepared):
            if not isinstance(one, Exception):
                by_shape[one[0].shape].append((index, *one))
        for images in by_shape.values():
            for start in range(0, len(images), self.max_batch):
                indices, pixels, restores = zip(*images[start : start + self.max_batch], strict=True)
                try:
                    outputs = self._infer(np.stack(pixels))
                except RuntimeError as error:  # images of another size may still work
                    answers |= dict.fromkeys(indices, error)
                    continue
                for index, restore, *rows in zip(indices, restores, *outputs, strict=True):
                    answers[index] = dict(zip(self.outputs, map(restore, rows), strict=True))
        return [answers[index] for index in range(len(files))]

    def _prepare(self, file: bytes, name: str) -> tuple[np.ndarray, Restore] | Exception:
        """Return the pixels of one image, uint8 (H, W, 3), and how to restore its answer; or why it can't be read."""
        try:
            if self.formats is None:  # an older csg deployed this version, with its own csg.images
                return self._prepare_as_before(file, name)
            if not self.segments:
                return self.images.load(file, self.spec, name, self.formats), lambda row: row
            scene = self.images.load_segmentation(file, self.spec, name, self.formats)
            return scene.pixels, scene.restore
        except Exception as error:  # the other images are still answered
            return error

    def _prepare_as_before(self, file: bytes, name: str) -> tuple[np.ndarray, Restore]:
        image = self.images.decode(file, name)
        if not self.segments:
            return self.images.prepare(image, self.spec), lambda row: row
        scene = self.images.prepare_segmentation(image, self.spec)
        return scene.pixels, scene.restore

    def _infer(self, pixels: np.ndarray) -> list[np.ndarray]:
        """Return the tensor model's outputs for uint8 (N, H, W, 3).

        Raises:
            NotServedError: the server does not have this version.
            RuntimeError: the model failed.
        """
        response = pb_utils.InferenceRequest(
            model_name=self.model,
            model_version=int(self.number),
            inputs=[pb_utils.Tensor(self.spec.name, pixels)],
            requested_output_names=self.outputs,
            preferred_memory=pb_utils.PreferredMemory(pb_utils.TRITONSERVER_MEMORY_CPU, 0),
        ).exec()
        if response.has_error():
            message = response.error().message()
            if "is not ready" in message or not pb_utils.is_model_ready(self.model, self.number):
                raise NotServedError(message)
            raise RuntimeError(message)
        found = [pb_utils.get_output_tensor_by_name(response, name).as_numpy() for name in self.outputs]
        return [output.copy() for output in found]  # their memory is freed with the response


def _response(answers: list[Answer]) -> Any:
    """Return the response to one request."""
    errors = [_reason(answer) if isinstance(answer, Exception) else "" for answer in answers]
    good = [answer for answer in answers if not isinstance(answer, Exception)]
    if not good:
        return _refusal("; ".join(errors), invalid=not any(isinstance(answer, RuntimeError) for answer in answers))
    if len({row.shape for answer in good for row in list(answer.values())[:1]}) > 1:
        return _refusal("images of different sizes; send each in a separate request", invalid=True)
    tensors = []
    for name, like in good[0].items():
        none = np.full_like(like, 0 if like.dtype.kind == "f" else 255)  # NaN is no JSON
        rows = [none if isinstance(answer, Exception) else answer[name] for answer in answers]
        tensors.append(pb_utils.Tensor(name, np.stack(rows)))
    tensors.append(pb_utils.Tensor("error", np.array([[error.encode()] for error in errors], np.object_)))
    return pb_utils.InferenceResponse(tensors)


def _refusal(message: str, invalid: bool) -> Any:
    """Return an error as the whole response; `invalid`: the request is at fault."""
    code = pb_utils.TritonError.INVALID_ARG if invalid else pb_utils.TritonError.INTERNAL
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(message, code))


def _reason(error: Exception) -> str:
    return str(getattr(error, "message", "")) or str(error) or type(error).__name__


def _csg(folder: Path) -> tuple[ModuleType, ModuleType]:
    """Import `csg.images` and `csg.card` from a folder, even if csg is installed or was imported from another one."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "csg"]:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("csg.images"), importlib.import_module("csg.card")
    except ModuleNotFoundError as error:
        hint = "install numpy, pillow and pydantic there, or deploy with --no-encoded"
        raise RuntimeError(f"the server's Python has no {error.name}: {hint}") from None
    finally:
        sys.path.remove(str(folder))
