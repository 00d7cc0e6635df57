"""A bundle as a model that answers in this process, with the sessions that the server opens for it.

Shape letters: N images, H W height and width of the model's input.
"""

from __future__ import annotations

import asyncio
import importlib.util
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from csg.bundle import Bundle, read_bundle
from csg.card import ModelCard, Output
from csg.console import log
from csg.errors import InputError, UsageError, VerificationError, one_line
from csg.extras import install_command
from csg.golden import golden_pixels
from csg.machine_errors import machine_error
from csg_serve.python_backend.scheduling import Run, SessionOptions
from csg_serve.python_backend.sessions import Graph, session_opener

MAX_BATCH = 8
"""Images that a request has at most."""
INSTANCE = {"model_instance_kind": "AUTO", "model_instance_device_id": "0"}
"""A GPU where this process has one, otherwise the CPU: as a server without an instance group."""
EXPORT_AGAIN = "export the run again on this machine"


@dataclass(frozen=True)
class BundleModel:
    """An open bundle; it answers as `csg_serve.client.model.OpenModel` says."""

    bundle: Bundle
    """The bundle."""
    run: Run
    """Computes every output of the card for uint8 images (N, H, W, 3)."""
    version: int = 0
    """A bundle has none."""
    in_flight: int = 2
    """One request is prepared while another is computed."""
    max_batch: int = MAX_BATCH
    """Images that a request may have."""

    @property
    def server(self) -> str:
        """The folder."""
        return str(self.bundle.path)

    @property
    def name(self) -> str:
        """The name in the card."""
        return self.bundle.card.name

    @property
    def card(self) -> ModelCard:
        """The model card."""
        return self.bundle.card

    async def infer(
        self, images: NDArray[np.uint8], row: tuple[int, ...], output: Output | None = None
    ) -> NDArray[Any]:
        """Compute one output, (N, *row), in another thread."""
        wanted = output or self.card.outputs[0]
        answers = await asyncio.to_thread(_computed, self, images)
        answer = answers[self.card.outputs.index(wanted)]
        if wrong := _problem(answer, (len(images), *row), len(self.card.classes)):
            raise VerificationError(f"{self.bundle.path} answers wrongly: its {wanted.name} {wrong}", EXPORT_AGAIN)
        return answer


@asynccontextmanager
async def open_bundle(path: Path | Bundle) -> AsyncIterator[BundleModel]:
    """Open a bundle, and compare its answers with the golden ones.

    Args:
        path: the folder, whose checksums are verified; or a bundle that was read before.

    Raises:
        InputError: as `csg.bundle.read_bundle`; its runtime can't load the graph.
        VerificationError: as `csg.bundle.read_bundle`; its answers differ from the golden ones.
        UsageError: the runtime that it needs is not installed.

    Example:
        >>> async with open_bundle(Path("bundles/digits-csg-1")) as model:
        ...     print(model.card.classes)
    """
    bundle = path if isinstance(path, Bundle) else await asyncio.to_thread(read_bundle, path)
    model = BundleModel(bundle, await asyncio.to_thread(_open, bundle))
    if engine := bundle.card.engine:
        log(f"{bundle.path}: its ONNX file answers here, not the {engine.library} engine that was built from it")
    await asyncio.to_thread(_check_golden, model)
    yield model


def _open(bundle: Bundle) -> Run:
    card = bundle.card
    graph = Graph(bundle.model, card.input.name, [output.name for output in card.outputs])
    package, extra = ("OpenVINO", "openvino") if card.runtime == "openvino" else ("ONNX Runtime", "local")
    if importlib.util.find_spec(card.runtime) is None:
        raise UsageError(f"{bundle.path} needs {package}", install_command(extra))
    threads = int(os.environ.get("CSG_THREADS") or len(os.sched_getaffinity(0)))
    try:
        opener, _ = session_opener(card.model_dump(mode="json"), graph, INSTANCE, log)
        return opener(SessionOptions(threads=threads, spinning=False))
    except Exception as error:  # each runtime has its own
        if machine_error(error):
            raise
        raise InputError(f"{package} can't load {bundle.model}: {one_line(error)}", EXPORT_AGAIN) from None


def _computed(model: BundleModel, images: NDArray[np.uint8]) -> list[NDArray[Any]]:
    """Every output of the card; an error of the runtime that is not one of the machine is one of the bundle."""
    try:
        return model.run(images)
    except Exception as error:  # each runtime has its own
        if machine_error(error):
            raise
        raise VerificationError(f"{model.bundle.path} can't be computed: {one_line(error)}", EXPORT_AGAIN) from None


def _problem(answer: NDArray[Any], shape: tuple[int, ...], classes: int) -> str | None:
    """What is wrong with an output, as a client of a server would find; None if nothing is."""
    if answer.shape != shape:
        return f"has shape {answer.shape}, not {shape}"
    if answer.dtype.kind == "f" and not np.isfinite(answer).all():
        return "is not finite"
    if answer.dtype.kind == "u" and answer.max() >= classes:
        return f"has class {answer.max()} of {classes}"
    return None


def _check_golden(model: BundleModel) -> None:
    bundle = model.bundle
    if not bundle.golden:
        log(f"{bundle.path} has no golden answers: what it answers here was never compared with PyTorch")
        return
    for golden in bundle.golden.answers:
        pixels, _ = golden_pixels(golden, bundle.card)
        if wrong := golden.difference(_computed(model, pixels[None])[0][0]):
            raise VerificationError(f"{bundle.path} answers wrongly here: {wrong}", EXPORT_AGAIN)
