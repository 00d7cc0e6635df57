"""How a model is to be served: the options of `csg deploy`. Each has a sensible default, none has to be given."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from csg.card import ModelCard, SegmentationInput
from csg.errors import UsageError
from csg_serve.triton.machine import available_cores, has_gpu

Device = Literal["auto", "cpu", "gpu"]
MAX_BATCH_SIZE = 32
MAX_BATCH_PIXELS = 2**21  # of a segmenter, whose logits take 4 bytes for each class and pixel while it works
RESOURCE = re.compile(r"([A-Za-z0-9_.-]+):([1-9][0-9]*)")


@dataclass(frozen=True)
class DeployOptions:
    """What `csg deploy` can be told beside the bundle.

    encoded: a second model beside it that takes image files. max_batch: images, by default what `max_batch_size` says.
    queue_delay_ms: how long a request may wait for others to share its batch. preferred_batch: sizes for which a batch
    does not wait on. queue_size, timeout_ms: requests that may wait, and how long, before they are refused; None: no
    bound. instances: of the model on each device; None: as `on_this_machine` says. device: "auto" takes a GPU where
    there is one. warm_up: the first batches are computed before the model counts as ready. response_cache: equal
    requests are answered from memory. keep: earlier versions to leave in the repository; None: all. rate_limit:
    "resource:count" that one run takes; priority: of its turns against other models', 1 the highest. accelerator:
    TensorRT inside the onnxruntime backend.
    engine_cache: the folder for its engines on the server's machine.
    """

    encoded: bool = True
    max_batch: int | None = None
    queue_delay_ms: float = 0.1
    preferred_batch: tuple[int, ...] = ()
    queue_size: int | None = None
    timeout_ms: float | None = None
    instances: int | None = None
    device: Device = "auto"
    warm_up: bool = True
    response_cache: bool = False
    keep: int | None = None
    rate_limit: tuple[str, ...] = ()
    priority: int | None = None
    accelerator: Literal["none", "tensorrt"] = "none"
    engine_cache: str = "/tmp"

    @property
    def resources(self) -> list[tuple[str, int]]:
        """The resources that one run takes, and how many of each.

        Raises:
            UsageError: one is malformed.
        """
        found = []
        for text in self.rate_limit:
            match = RESOURCE.fullmatch(text)
            if not match:
                raise UsageError(f"--rate-limit {text} is no resource:count", "for example --rate-limit cores:1")
            found.append((match[1], int(match[2])))
        return found

    def check(self, card: ModelCard, backend: str) -> None:
        """See that they fit the bundle and the backend.

        Raises:
            UsageError: one does not.
        """
        _ = self.resources
        largest, batch = _largest(card), self.max_batch or max_batch_size(card)
        for wrong, what, hint in (
            (
                backend == "tensorrt" and batch > (largest or batch),
                f"--max-batch {batch} is above the plan's largest, {largest}",
                "choose a smaller one, or export again with a larger --batch",
            ),
            (
                max(self.preferred_batch, default=1) > batch,
                f"--preferred-batch {max(self.preferred_batch, default=1)} is above the largest batch, {batch}",
                "choose smaller ones, or set --max-batch",
            ),
            (
                self.accelerator == "tensorrt" and backend != "onnxruntime",
                f"--accelerator tensorrt is the onnxruntime backend's, not {backend}'s",
                "deploy with --backend onnxruntime",
            ),
            (
                self.device == "cpu" and (backend == "tensorrt" or self.accelerator == "tensorrt"),
                "TensorRT runs on no CPU",
                "leave --device out",
            ),
            (
                (self.device == "gpu" or self.accelerator == "tensorrt") and card.runtime == "openvino",
                "the bundle is computed by OpenVINO, on a CPU",
                "export with --precision fp16 for a GPU",
            ),
            (
                self.priority is not None and not self.rate_limit,
                "--priority is the rate limiter's",
                "give --rate-limit resource:count too",
            ),
        ):
            if wrong:
                raise UsageError(what, hint)


DEFAULTS = DeployOptions()


def on_this_machine(options: DeployOptions, card: ModelCard, backend: str) -> DeployOptions:
    """The options with what was not said, where this machine's CPU computes a classifier inside the Python backend.

    Two instances, each with half of the cores: while one takes and returns images, the other computes. And batches of
    an image a core: larger ones gain nothing there, and leave too few requests waiting to keep both at work.
    """
    cores = available_cores()
    others = backend != "python" or card.task != "classification" or cores < 2
    if others or (options.device != "cpu" and has_gpu()):
        return options
    batch = min(cores, options.max_batch or max_batch_size(card))
    return replace(options, instances=options.instances or 2, preferred_batch=options.preferred_batch or (batch,))


def max_batch_size(card: ModelCard) -> int:
    """Images in a batch: 32; of a segmenter as many as bounded memory allows, of free sizes 4; a plan's largest."""
    spec = card.input
    if largest := _largest(card):
        return largest
    if not isinstance(spec, SegmentationInput):
        return MAX_BATCH_SIZE
    if spec.height is None or spec.width is None:
        return 4
    return max(1, min(MAX_BATCH_SIZE, MAX_BATCH_PIXELS // (spec.height * spec.width)))


def _largest(card: ModelCard) -> int | None:
    """The largest batch of a plan."""
    return card.engine.profile[2][0] if card.engine and card.engine.library == "tensorrt" else None
