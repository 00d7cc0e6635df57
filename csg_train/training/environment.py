"""What a run is made with: software, hardware, data, classes (`environment.json` of a run folder)."""

from __future__ import annotations

import os
import platform
import resource
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from typing import Literal

import torch

import csg
from csg.card import ClassName, ClassSpec, Colour
from csg.provenance import PretrainedWeights
from csg.records import Record
from csg_train.distributed import world_size
from csg_train.models.fast_layers import fast_layers_enabled
from csg_train.models.weights_licence import pretrained_weights
from csg_train.recipe import Recipe, Speed
from csg_train.tasks import Images
from csg_train.training.optimizer import PrecisionName
from csg_train.training.speed import set_device

PACKAGES = ("torch", "torchvision", "numpy", "pillow", "safetensors")


class Environment(Record):
    """What a run was started with."""

    version: Literal[1] = 1
    """Version of the format."""
    csg: str
    """Version of csg."""
    commit: str | None
    """Commit of the checkout that csg ran from, with `-dirty` if it had changes; None for an installed package."""
    python: str
    """Version of Python."""
    packages: dict[str, str]
    """Versions of the packages that matter for the result."""
    device: str
    """Name of the GPU or the processor."""
    threads: int
    """Threads of torch on the CPU."""
    fast_layers: bool
    """Whether csg_train.models.fast_layers was on; its results agree with the plain layers up to rounding."""
    processes: int
    """Processes that trained together."""
    precision: PrecisionName
    """Precision of the forward pass, never `auto`."""
    seed: int
    """Seed of all random numbers."""
    data_fingerprint: str
    """Fingerprint of the training images."""
    real_fingerprint: str | None
    """Fingerprint of the real images to measure on; None without any."""
    weights_fingerprint: str | None = None
    """SHA-256 of the tensors of the ImageNet weights; None for random ones, and in runs of older versions."""
    weights: PretrainedWeights | None = None
    """What is known of the pretrained weights and their licence; None in runs of older versions."""
    recipe_digest: str
    """Hash of all settings."""
    classes: tuple[ClassName, ...]
    """Names of the classes in the order of the student's outputs."""
    label_set: str | None
    """Label set of a segmenter."""
    colours: tuple[Colour, ...]
    """Colours of the classes of a segmenter."""
    command: tuple[str, ...]
    """Command line."""

    @property
    def class_spec(self) -> ClassSpec:
        """The classes of the run's student."""
        return ClassSpec(self.classes, self.label_set, self.colours)


def training_device() -> torch.device:
    """The GPU, if there is one, set so that a seed fixes the weights on it too.

    cuDNN and the sums of gradients would otherwise choose between algorithms whose results differ. An operation without
    a deterministic form is used as it is, and torch warns of it.
    """
    if not torch.cuda.is_available():
        return torch.device("cpu")
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when the first product is computed
    torch.utils.deterministic.fill_uninitialized_memory = False  # type: ignore[attr-defined]
    device = torch.device("cuda")
    set_device(Speed(), device)
    return device


def peak_memory_mib(device: torch.device) -> int:
    """Peak memory in MiB: what torch allocated on the GPU, or the resident set of this process."""
    if device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) // 2**20
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024  # Linux counts KiB


def current_environment(
    recipe: Recipe,
    images: Images,
    real: Images | None,
    *,
    weights: str | None,
    precision: PrecisionName,
    device: torch.device,
) -> Environment:
    """The environment of a run that starts now.

    Args:
        recipe: with all settings.
        images: the training images.
        real: the real images to measure on.
        weights: fingerprint of the ImageNet weights.
        precision: of the forward pass.
        device: that the run trains on.
    """
    class_spec = images.class_spec
    return Environment(
        csg=csg.__version__,
        commit=_commit(),
        python=platform.python_version(),
        packages={name: metadata.version(name) for name in PACKAGES},
        device=torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        threads=torch.get_num_threads(),
        fast_layers=fast_layers_enabled(),
        processes=world_size(),
        precision=precision,
        seed=recipe.seed,
        data_fingerprint=images.fingerprint(),
        real_fingerprint=real.fingerprint() if real else None,
        weights_fingerprint=weights,
        weights=pretrained_weights(recipe.model.backbone, recipe.model.weights),
        recipe_digest=recipe.digest(),
        classes=class_spec.names,
        label_set=class_spec.label_set,
        colours=class_spec.colours,
        command=tuple(sys.argv),
    )


def _commit() -> str | None:
    if shutil.which("git") is None:
        return None
    git = ["git", "-C", str(Path(csg.__file__).parent)]
    tracked = subprocess.run([*git, "ls-files", "--error-unmatch", "__init__.py"], capture_output=True)
    if tracked.returncode:
        return None
    described = subprocess.run(
        [*git, "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"], capture_output=True, text=True
    )
    return described.stdout.strip() or None
