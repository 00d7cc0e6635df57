"""Takes encoded images inside Triton's Python backend, prepares them, and asks the tensor model of the same repository.

`csg deploy` copies this file into a version folder of the model `<name>_encoded`. Beside it stands a folder for the
version of the tensor model that has the same number, and one for the version that was served before it, each with what
belongs to that version and to no other: `served.json` and the `csg/images.py` that prepares its pixels. The former one
is asked until the new one has taken its place, so that no request fails in between and none gets another's pixels.

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
MOST_THREADS = 8  # each may hold an image of 256 MiB, and a copy
sys.dont_write_bytecode = True  # a new file in the repository, and the polling server would load the model again

Restore = Callable[[np.ndarray], np.ndarray]
Answer = dict[str, np.ndarray] | Exception


class TritonPythonModel:
    """One instance of the model; Triton calls these methods by name."""

    def initialize(self, args: dict[str, str]) -> None:
        """Get ready for the version of the tensor model that has this one's number."""
        self.model: str = json.loads(args["model_config"])["parameters"]["csg_encoded_for"]["string_value"]
        self.folder = Path(args["model_repository"], args["model_version"])
        threads = int(os.environ.get("CSG_THREADS") or len(os.sched_getaffinity(0)))
        self.pool = ThreadPoolExecutor(min(threads, MOST_THREADS))
        self.version = Version(self.model, self.folder / args["model_version"])

    def execute(self, requests: list[Any]) -> list[Any]:
        """Answer the requests of one dynamic batch.

        Each request carries encoded images, bytes (n, 1). Its response: every output's rows for those n images, and
        `error`, bytes (n, 1): why an image has no answer, empty where it has one. The rows of one without are 0, of a
        label map 255. A request without an image that can be read is answered with an error.
        """
        parts = [pb_utils.get_input_tensor_by_name(request, "encoded").as_numpy().ravel() for request in requests]
        names = [str(place) for part in parts for place in range(len(part))]
        try:
            answers = iter(self._answer(list(np.concatenate(parts)), names))
            return [_response([next(answers) for _ in part]) for part in parts]
        except Exception as error:  # whatever it was, the requests get an answer and the server goes on
            return [pb_utils.InferenceResponse(error=pb_utils.TritonError(str(error))) for _ in requests]

    def _answer(self, files: list[bytes], names: list[str]) -> list[Answer]:
        """What the tensor model says of each image; where it is switched while they are prepared, its other version.

        A polling Triton calls a model unready for a moment where anything in its folder has changed.
        """
        deadline = time.monotonic() + SWITCH_S
        while True:
            try:
                return self._served().answer(files, names, self.pool)
            except NotServedError:
                if time.monotonic() > deadline:
                    raise
                time.sleep(0.02)

    def _served(self) -> Version:
        """The version that the server has: this one's number, or at the moment of a switch the one served before."""
        if not pb_utils.is_model_ready(self.model, self.version.number):
            for folder in self.folder.glob("[0-9]*"):
                if pb_utils.is_model_ready(self.model, folder.name):
                    self.version = Version(self.model, folder)
        return self.version


class NotServedError(Exception):
    """The server does not have this version of the tensor model."""


class Version:
    """A version of the tensor model, and the way its pixels are prepared."""

    def __init__(self, model: str, folder: Path):
        self.model, self.number = model, folder.name
        served = json.loads((folder / "served.json").read_text())
        self.images, card_module = _csg(folder)
        card = card_module.parse_card(json.dumps(served["card"]), str(folder))
        self.spec, self.scenes, self.max_batch = card.input, card.task == "segmentation", served["max_batch_size"]
        self.outputs = [output.name for output in card.outputs][: 1 if self.scenes else None]

    def answer(self, files: list[bytes], names: list[str], pool: ThreadPoolExecutor) -> list[Answer]:
        """Each output's row for each image, or why the image has none; `names` are for that.

        Raises:
            NotServedError: the server does not have this version.
        """
        prepared = list(pool.map(self._prepare, files, names))
        answers: dict[int, Answer] = {place: one for place, one in enumerate(prepared) if isinstance(one, Exception)}
        alike = defaultdict(list)
        for place, one in enumerate(prepared):
            if not isinstance(one, Exception):
                alike[one[0].shape].append((place, *one))
        for images in alike.values():
            for start in range(0, len(images), self.max_batch):
                places, pixels, restores = zip(*images[start : start + self.max_batch], strict=True)
                try:
                    outputs = self._infer(np.stack(pixels))
                except RuntimeError as error:  # images of another size may do
                    answers |= dict.fromkeys(places, error)
                    continue
                for place, restore, *rows in zip(places, restores, *outputs, strict=True):
                    answers[place] = dict(zip(self.outputs, map(restore, rows), strict=True))
        return [answers[place] for place in range(len(files))]

    def _prepare(self, file: bytes, name: str) -> tuple[np.ndarray, Restore] | Exception:
        """The pixels uint8 (H, W, 3) of one image, and what makes its answer of a row; or why it has none."""
        try:
            image = self.images.decode(file, name)
            if not self.scenes:
                return self.images.prepare(image, self.spec), lambda row: row
            scene = self.images.prepare_segmentation(image, self.spec)
            return scene.pixels, scene.restore
        except Exception as error:  # one image is no reason for the others to fail
            return error

    def _infer(self, pixels: np.ndarray) -> list[np.ndarray]:
        """The tensor model's outputs for uint8 (N, H, W, 3).

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
        return [output.copy() for output in found]  # they lie in memory that goes with the response


def _response(answers: list[Answer]) -> Any:
    """One request's response."""
    errors = [_reason(answer) if isinstance(answer, Exception) else "" for answer in answers]
    good = [answer for answer in answers if not isinstance(answer, Exception)]
    if not good:
        return _refusal("; ".join(errors), theirs=not any(isinstance(answer, RuntimeError) for answer in answers))
    if len({row.shape for answer in good for row in list(answer.values())[:1]}) > 1:
        return _refusal("images of different sizes; send each in a request of its own", theirs=True)
    tensors = []
    for name, like in good[0].items():
        none = np.full_like(like, 0 if like.dtype.kind == "f" else 255)  # NaN is no JSON
        rows = [none if isinstance(answer, Exception) else answer[name] for answer in answers]
        tensors.append(pb_utils.Tensor(name, np.stack(rows)))
    tensors.append(pb_utils.Tensor("error", np.array([[error.encode()] for error in errors], np.object_)))
    return pb_utils.InferenceResponse(tensors)


def _refusal(what: str, theirs: bool) -> Any:
    """An error as the whole response: by the client's fault, or not."""
    code = pb_utils.TritonError.INVALID_ARG if theirs else pb_utils.TritonError.INTERNAL
    return pb_utils.InferenceResponse(error=pb_utils.TritonError(what, code))


def _reason(error: Exception) -> str:
    return str(getattr(error, "message", "")) or str(error) or type(error).__name__


def _csg(folder: Path) -> tuple[ModuleType, ModuleType]:
    """`csg.images` and `csg.card` of a folder, whichever csg is installed or was loaded from another."""
    for name in [name for name in sys.modules if name.partition(".")[0] == "csg"]:
        del sys.modules[name]
    sys.path.insert(0, str(folder))
    try:
        return importlib.import_module("csg.images"), importlib.import_module("csg.card")
    except ModuleNotFoundError as error:
        hint = "`pip install numpy pillow pydantic` for it, or deploy with --no-encoded"
        raise RuntimeError(f"the server's Python has no {error.name}: {hint}") from None
    finally:
        sys.path.remove(str(folder))
