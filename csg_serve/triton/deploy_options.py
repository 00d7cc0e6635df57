"""Options of `csg deploy`: how Triton serves a model. Every option has a default."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Literal

from csg.card import ModelCard, SegmentationInput
from csg.errors import UsageError
from csg.images import FORMATS
from csg_serve.python_backend.sessions import has_gpu
from csg_serve.triton.executable import best_backend
from csg_serve.triton.machine import available_cores

Backend = Literal["auto", "python", "onnxruntime", "tensorrt"]
Device = Literal["auto", "cpu", "gpu"]
Accelerator = Literal["none", "tensorrt"]

MAX_BATCH_SIZE = 32
FREE_SIZE_BATCH = 4
MAX_BATCH_PIXELS = 2**21
"""Pixels in a batch of a segmenter: its logits take 4 bytes for each class and pixel during the run."""

PRECISION_MODES = {"fp32": "FP32", "fp16": "FP16", "int8": "INT8"}
"""Precision mode of TensorRT inside ONNX Runtime, by the card's compute type."""
FIRST_IMAGES = {"1.18": "24.05"}
"""First of Triton's images with an ONNX Runtime (docs/deploy/README.md)."""
RESOURCE = re.compile(r"([A-Za-z0-9_.-]+):([1-9][0-9]*)")


@dataclass(frozen=True)
class DeployOptions:
    """How Triton serves one version of a model."""

    backend: Backend = "auto"
    """Triton's backend. "auto": the best one of the tritonserver on this machine, as `best_backend` says."""

    encoded: bool = True
    """Add the model `<name>_encoded`, which takes image files."""

    formats: str = "jpeg,png,webp"
    """Formats of the files that `<name>_encoded` takes, separated by commas."""

    max_batch: int | None = None
    """Largest batch, in images. None: as `max_batch_size` says."""

    queue_delay_ms: float = 0.1
    """Milliseconds that a request waits for others to share its batch."""

    preferred_batch: tuple[int, ...] = ()
    """Batch sizes, in images, that are computed without waiting for more requests."""

    queue_size: int | None = None
    """Requests that may wait; more are refused. None: no limit."""

    timeout_ms: float | None = None
    """Milliseconds that a request may wait before it is refused. None: no limit."""

    instances: int | None = None
    """Instances on each device. None: 1, or as `with_cpu_defaults` says."""

    device: Device = "auto"
    """Where the model runs. "auto": on a GPU if there is one."""

    warm_up: bool = True
    """Compute the first batches before the model counts as ready."""

    response_cache: bool = False
    """Answer equal requests from memory."""

    keep: int | None = None
    """Number of earlier versions to keep in the repository. None: all."""

    rate_limit: tuple[str, ...] = ()
    """Resources that one run takes, each as "name:count"."""

    priority: int | None = None
    """Priority of the model's runs at the rate limiter; 1 is the highest."""

    accelerator: Accelerator = "none"
    """TensorRT inside the onnxruntime backend, or none."""

    engine_cache: str = "/tmp"
    """Folder for TensorRT engines on the server's machine."""

    @property
    def resources(self) -> list[tuple[str, int]]:
        """Name and count of the resources in `rate_limit`.

        Raises:
            UsageError: one is malformed.
        """
        resources = []
        for text in self.rate_limit:
            match = RESOURCE.fullmatch(text)
            if not match:
                raise UsageError(
                    f"--rate-limit {text} is not of the form NAME:COUNT", "for example --rate-limit cores:1"
                )
            resources.append((match[1], int(match[2])))
        return resources

    @property
    def image_formats(self) -> tuple[str, ...]:
        """Pillow's names of the formats in `formats`, and PNG: the images of the golden answers are PNG files.

        Raises:
            UsageError: one is not known.
        """
        known = {name.lower(): name for name in FORMATS}
        names = [name.strip().lower() for name in self.formats.split(",")]
        if unknown := [name for name in names if name not in known]:
            raise UsageError(f"--formats {unknown[0]!r} is no format", f"choose from {', '.join(known)}")
        return tuple(dict.fromkeys([*(known[name] for name in names), "PNG"]))

    def check(self, card: ModelCard) -> None:
        """Check that the options fit the bundle and each other.

        Raises:
            UsageError: they do not.
        """
        _ = self.resources, self.image_formats
        batch, preferred = self.max_batch or max_batch_size(card), max(self.preferred_batch, default=1)
        largest = _plan_batch(card) if self.backend == "tensorrt" else None
        uses_tensorrt = self.backend == "tensorrt" or self.accelerator == "tensorrt"
        if largest and batch > largest:
            raise UsageError(
                f"--max-batch {batch} is above the plan's largest batch, {largest}",
                "choose a smaller one, or export again with a larger --batch",
            )
        if preferred > batch:
            raise UsageError(
                f"--preferred-batch {preferred} is above the largest batch, {batch}",
                "choose smaller ones, or set --max-batch",
            )
        if self.accelerator == "tensorrt" and self.backend != "onnxruntime":
            raise UsageError(
                f"--accelerator tensorrt needs the onnxruntime backend, not {self.backend}",
                "deploy with --backend onnxruntime",
            )
        if self.device == "cpu" and uses_tensorrt:
            raise UsageError("TensorRT does not run on a CPU", "omit --device")
        if card.runtime == "openvino" and (self.device == "gpu" or self.backend != "python"):
            raise UsageError(
                "OpenVINO computes this bundle, on a CPU and in the python backend",
                "export with --precision fp16 for a GPU or another backend",
            )
        if self.accelerator == "tensorrt" and card.compute_type not in PRECISION_MODES:
            raise UsageError(f"--accelerator tensorrt does not compute in {card.compute_type}", "omit it")
        if self.priority is not None and not self.rate_limit:
            raise UsageError("--priority needs a rate limit", "add --rate-limit NAME:COUNT")


DEFAULTS = DeployOptions()


def resolve(options: DeployOptions, card: ModelCard) -> DeployOptions:
    """Return checked options for a bundle, with the backend and the CPU settings that the user left open.

    Raises:
        UsageError: the options do not fit the bundle or each other.
    """
    backend = best_backend(card) if options.backend == "auto" else options.backend
    options = replace(options, backend=backend)
    options.check(card)
    return with_cpu_defaults(options, card)


def with_cpu_defaults(options: DeployOptions, card: ModelCard) -> DeployOptions:
    """Fill in instances and preferred batch for a classifier on a CPU.

    In the Python backend on this machine's CPU it gets two instances with half of the cores each: while one receives
    and returns images, the other computes. A batch has one image a core: larger ones gain nothing, and leave too few
    waiting requests to keep both busy. In the onnxruntime backend it gets an instance a core, if it is for a CPU by
    name: on a GPU, each instance would take memory.
    """
    cores = available_cores()
    if card.task != "classification":
        return options
    if options.backend == "onnxruntime" and options.device == "cpu":
        return replace(options, instances=options.instances or cores)
    if options.backend != "python" or cores < 2 or not computes_on_cpu(options):
        return options
    batch = min(cores, options.max_batch or max_batch_size(card))
    return replace(options, instances=options.instances or 2, preferred_batch=options.preferred_batch or (batch,))


def computes_on_cpu(options: DeployOptions) -> bool:
    """Return whether a model is for a CPU: it says so, or this machine has no GPU."""
    return options.device == "cpu" or (options.device == "auto" and not has_gpu())


def onnxruntime_threads(options: DeployOptions, card: ModelCard) -> int:
    """Return the threads of an instance in the onnxruntime backend.

    On a CPU, the instances of a classifier compute side by side with one thread each, and those of a segmenter, whose
    images are large, share the cores out. On a GPU there is little left for the CPU.
    """
    side_by_side = card.task == "classification" and options.device == "cpu"
    if side_by_side or not computes_on_cpu(options):
        return 1
    return max(1, available_cores() // (options.instances or 1))


def advice(options: DeployOptions, card: ModelCard) -> list[str]:
    """Return what to know about a bundle on its backend: the oldest server, and what fp16 costs on a CPU."""
    lines, image = [], FIRST_IMAGES.get(card.oldest_runtime or "")
    if options.backend == "onnxruntime" and image:
        lines.append(f"needs ONNX Runtime {card.oldest_runtime} or later, which Triton's images have from {image} on")
    if card.compute_type == "fp16" and computes_on_cpu(options):
        if options.backend == "python":
            lines.append("fp16 on a CPU: the server computes it in fp32, as fast as an fp32 bundle")
        elif options.backend == "onnxruntime":
            lines.append(
                "fp16 on a CPU: up to twice the CPU time of fp32, with ONNX Runtime before 1.23 up to 12 times; "
                "deploy an fp32 or int8 bundle there, or --backend python"
            )
    return lines


def max_batch_size(card: ModelCard) -> int:
    """Return the default largest batch of a bundle, in images.

    It is the largest batch of a TensorRT plan, 32 for a classifier, 4 for a segmenter of free image size, and as many
    images as make 2**21 pixels for one of a fixed size.
    """
    spec = card.input
    if largest := _plan_batch(card):
        return largest
    if not isinstance(spec, SegmentationInput):
        return MAX_BATCH_SIZE
    if spec.height is None or spec.width is None:
        return FREE_SIZE_BATCH
    return max(1, min(MAX_BATCH_SIZE, MAX_BATCH_PIXELS // (spec.height * spec.width)))


def _plan_batch(card: ModelCard) -> int | None:
    """Return the largest batch of a bundle's TensorRT plan; None if it has no plan."""
    return card.engine.profile[2][0] if card.engine and card.engine.library == "tensorrt" else None
