"""The run folder: what a training leaves behind, and what a resumed one continues from.

recipe.yaml            every setting, resolved
environment.json       versions, device, seed, data fingerprint, commit
metrics.jsonl          one line each logged step and each evaluation; the same curves for TensorBoard beside it
checkpoints/           the last two states of an unfinished run
student.safetensors    the trained student; written last but one
result.json            what `csg train --json` prints; its presence says that the run is finished
diverged.txt           in place of the last two, why there is no student
"""

from __future__ import annotations

import json
import platform
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
import yaml
from safetensors import SafetensorError, safe_open
from safetensors.torch import save

import csg
from csg.card import ClassSpec
from csg.console import log
from csg.errors import InputError
from csg.files import atomic_write
from csg_train.recipe import Recipe, parse_recipe

RECIPE, ENVIRONMENT, METRICS, STUDENT, RESULT = (
    "recipe.yaml",
    "environment.json",
    "metrics.jsonl",
    "student.safetensors",
    "result.json",
)
DIVERGED = "diverged.txt"
KEEP = 2


@dataclass(frozen=True)
class Run:
    """A run folder."""

    path: Path

    @property
    def finished(self) -> bool:
        """Whether the training came to its end."""
        return (self.path / RESULT).is_file()

    @property
    def diverged(self) -> bool:
        """Whether the training ended in numbers that are none."""
        return (self.path / DIVERGED).is_file()

    @property
    def metrics(self) -> Path:
        return self.path / METRICS

    def recipe(self) -> Recipe:
        """The resolved recipe.

        Raises:
            InputError: this is no run folder.
        """
        try:
            tree = yaml.safe_load((self.path / RECIPE).read_text())
        except (OSError, yaml.YAMLError):
            raise InputError(
                f"{self.path} is no run folder: {RECIPE} is missing or broken", "name a run folder"
            ) from None
        return parse_recipe(tree, str(self.path / RECIPE))

    def environment(self) -> dict[str, Any]:
        """The environment record."""
        return self._json(ENVIRONMENT)

    def class_spec(self) -> ClassSpec:
        """What the run's student tells apart."""
        record = self.environment()
        colours = tuple((r, g, b) for r, g, b in record.get("colours", ()))
        return ClassSpec(tuple(record["classes"]), record.get("label_set"), colours)

    def result(self) -> dict[str, Any]:
        """The result of a finished run.

        Raises:
            InputError: the run is not finished.
        """
        if not self.finished:
            raise InputError(
                f"run {self.path} is not finished",
                f"finish it with `csg train {self.path.parent.name} --resume --out {self.path}`",
            )
        return self._json(RESULT)

    def write(self, name: str, content: str) -> None:
        """Write a text file of the run, whole or not at all."""
        atomic_write(self.path / name, content.encode())

    def _json(self, name: str) -> dict[str, Any]:
        try:
            return dict(json.loads((self.path / name).read_text()))
        except (OSError, ValueError):
            raise InputError(f"{self.path / name} is missing or broken", "train again, or name another run") from None

    def student(self) -> dict[str, torch.Tensor]:
        """The trained student's state dict.

        Raises:
            InputError: the file is missing or broken.
        """
        return _load(self.path / STUDENT)[0]

    def write_student(self, state: dict[str, torch.Tensor]) -> None:
        """Write the trained student."""
        atomic_write(self.path / STUDENT, save(_plain(state)))

    def save_checkpoint(self, step: int, tensors: dict[str, torch.Tensor]) -> None:
        """Write the state after `step` steps; of older ones, the one before is kept."""
        atomic_write(self._checkpoint(step), save(_plain(tensors), {"step": str(step)}))
        for old in self._checkpoints()[:-KEEP]:
            self._checkpoint(old).unlink()

    def load_checkpoint(self) -> tuple[int, dict[str, torch.Tensor]] | None:
        """The newest whole checkpoint, None if there is none; a broken one is passed over with a warning."""
        for step in reversed(self._checkpoints()):
            try:
                tensors, notes = _load(self._checkpoint(step))
                return int(notes["step"]), tensors
            except (InputError, KeyError, ValueError) as error:
                log(f"warning: {error}; taking the checkpoint before it")
        return None

    def drop_checkpoints(self) -> None:
        """Remove the checkpoints: the run is finished."""
        for step in self._checkpoints():
            self._checkpoint(step).unlink()
        if self._folder.is_dir():
            self._folder.rmdir()

    @property
    def _folder(self) -> Path:
        return self.path / "checkpoints"

    def _checkpoint(self, step: int) -> Path:
        return self._folder / f"step-{step:08d}.safetensors"

    def _checkpoints(self) -> list[int]:
        found = (re.fullmatch(r"step-(\d+)\.safetensors", file.name) for file in self._folder.glob("*.safetensors"))
        return sorted(int(match[1]) for match in found if match)


def _plain(tensors: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}


def _load(path: Path) -> tuple[dict[str, torch.Tensor], dict[str, str]]:
    if not path.is_file():
        raise InputError(f"{path} is not there", "finish the run with --resume, or name another")
    try:
        with safe_open(path, "pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}, file.metadata() or {}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} is broken: {error}", "restore it, or train again") from None


def newest_run(folder: Path, task: str = "*", unfinished: bool = False) -> Path:
    """The run below `folder` (runs/<task>/<name>) that was started last, among the unfinished ones if so asked.

    Raises:
        InputError: there is none.
    """
    recipes = sorted(folder.glob(f"{task}/*/{RECIPE}"), key=lambda file: file.stat().st_mtime_ns)
    runs = [file.parent for file in recipes if not (unfinished and Run(file.parent).finished)]
    if not runs:
        kind = "unfinished run" if unfinished else "run"
        raise InputError(f"no {kind} in {folder}/", "train one with `csg train`, or name its folder")
    return runs[-1]


def environment(device: torch.device, precision: str, seed: int, fingerprint: str) -> dict[str, Any]:
    """What a run was made with."""
    packages = ("torch", "torchvision", "numpy", "pillow", "safetensors")
    return {
        "csg": csg.__version__,
        "commit": _commit(),
        "python": platform.python_version(),
        "packages": {name: metadata.version(name) for name in packages},
        "device": torch.cuda.get_device_name(device) if device.type == "cuda" else platform.processor() or "cpu",
        "threads": torch.get_num_threads(),
        "precision": precision,
        "seed": seed,
        "data_fingerprint": fingerprint,
        "command": sys.argv,
    }


def _commit() -> str | None:
    """Commit of csg's own checkout, with `-dirty` if it was changed; None for an installed package."""
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
