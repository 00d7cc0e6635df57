"""A run in a few figures, whatever version of csg wrote it and however it ended."""

from __future__ import annotations

import os
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from csg.files import LOCK
from csg.locks import is_locked
from csg.parsing import parse_json, parse_yaml
from csg.records import Record
from csg_train.training.run_files import DIVERGED, ENVIRONMENT, RECIPE, RESULT, STUDENT

State = Literal["finished", "running", "stopped", "diverged", "damaged"]
SCORES = {"cls": ("mean_class_accuracy", "accuracy"), "seg": ("miou", "pixel_accuracy")}
"""The scores of a task, the main one first, as in `csg_train.tasks`."""
ENERGIES = ("E_0", "E_1", "E_2")
NEWEST_RESULT = 2
"""The newest version of `result.json` that this csg reads."""


class RunSummary(Record):
    """What a run folder says of its run; None for what it does not say, as in a damaged one."""

    path: str
    """The run folder."""
    state: State
    """finished; running: a process works in it; stopped: it can be resumed; diverged: it has no student; damaged."""
    problem: str | None = None
    """What is damaged."""
    task: str | None = None
    """cls or seg."""
    recipe: str | None = None
    """Name of the recipe."""
    method: str | None = None
    """Name of the method."""
    backbone: str | None = None
    """Name of the backbone."""
    seed: int | None = None
    """Its seed."""
    data: tuple[str, ...] = ()
    """Names of the sources of the training images."""
    measured: Literal["real", "held_out"] | None = None
    """What it was measured on: real images, or else synthetic ones that were held out."""
    measured_data: str | None = None
    """Name of these images."""
    images: int | None = None
    """How many were read."""
    real_fingerprint: str | None = None
    """Fingerprint of the real images."""
    scores: dict[str, float] = Field(default_factory=dict)
    """Its scores on them, 0 to 1, the main one first."""
    energy: dict[str, float] = Field(default_factory=dict)
    """Hyperspherical energy of the embeddings of these images: E_0, E_1, E_2."""
    nuclear_norm: float | None = None
    """What ranks models on these real images without their labels (`csg.label_free`); no accuracy."""
    steps: int | None = None
    """Optimiser steps made."""
    changed: str
    """When it last wrote a file, in UTC (ISO 8601)."""
    size_bytes: int
    """Size of all files in the folder."""

    @property
    def score(self) -> float | None:
        """Its main score."""
        return next(iter(self.scores.values()), None)


def read_summary(folder: Path) -> RunSummary:
    """The summary of a run folder; what can't be read is left out, and named in `problem`."""
    problems: list[str] = []
    recipe = _tree(folder / RECIPE, problems)
    environment = _tree(folder / ENVIRONMENT, problems)
    result = _tree(folder / RESULT, problems) if (folder / RESULT).exists() else {}
    if _whole(result, "version") not in (None, *range(NEWEST_RESULT + 1)):
        problems.append(f"{RESULT} is of a newer csg")
    if result and not (folder / STUDENT).is_file():
        problems.append(f"{STUDENT} is missing")
    task = _text(recipe, "task")
    kind: Literal["real", "held_out"] = "real" if _part(result, "real") else "held_out"
    evaluation, data, energy = _part(result, kind), _part(recipe, "data"), _part(result, "energy")
    size, changed = _size_and_time(folder)
    scores = {name: _number(evaluation, name) for name in SCORES.get(task or "", ())}
    energies = {name: _number(energy, name) for name in ENERGIES}
    sources = data.get("train")
    return RunSummary(
        path=str(folder),
        state=_state(folder, problems),
        problem="; ".join(problems) or None,
        task=task,
        recipe=_text(recipe, "name"),
        method=_text(recipe, "method"),
        backbone=_text(_part(recipe, "model"), "backbone"),
        seed=_whole(recipe, "seed"),
        data=tuple(Path(one).name for one in sources if isinstance(one, str)) if isinstance(sources, list) else (),
        measured=kind if evaluation else None,
        measured_data=_text(evaluation, "dataset"),
        images=_whole(evaluation, "images"),
        real_fingerprint=_text(environment, "real_fingerprint"),
        scores={name: value for name, value in scores.items() if value is not None},
        energy={name: value for name, value in energies.items() if value is not None},
        nuclear_norm=_number(result, "nuclear_norm"),
        steps=_whole(result, "steps"),
        changed=datetime.fromtimestamp(changed, UTC).isoformat(timespec="seconds"),
        size_bytes=size,
    )


def _state(folder: Path, problems: list[str]) -> State:
    """How the run has ended, if it has."""
    finished, diverged = (folder / RESULT).exists(), (folder / DIVERGED).exists()
    if not (finished or diverged) and is_locked(folder / LOCK):
        return "running"
    if diverged and not finished:
        return "diverged"
    if problems:
        return "damaged"
    return "finished" if finished else "stopped"


def _tree(file: Path, problems: list[str]) -> Mapping[str, Any]:
    """The object of a JSON or YAML file; an empty one, and a line in `problems`, if there is none."""
    try:
        content = file.read_bytes()
        tree = parse_json(content) if file.suffix == ".json" else parse_yaml(content)
    except FileNotFoundError:
        problems.append(f"{file.name} is missing")
    except (OSError, ValueError):
        problems.append(f"{file.name} can't be read")
    else:
        if isinstance(tree, dict) and tree:
            return tree
        problems.append(f"{file.name} is damaged")
    return {}


def _part(tree: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    found = tree.get(name)
    return found if isinstance(found, dict) else {}


def _text(tree: Mapping[str, Any], name: str) -> str | None:
    found = tree.get(name)
    return found if isinstance(found, str) else None


def _whole(tree: Mapping[str, Any], name: str) -> int | None:
    found = tree.get(name)
    return found if isinstance(found, int) and not isinstance(found, bool) else None


def _number(tree: Mapping[str, Any], name: str) -> float | None:
    found = tree.get(name)
    return float(found) if isinstance(found, int | float) and not isinstance(found, bool) else None


def _size_and_time(folder: Path) -> tuple[int, float]:
    """The size of all files in a folder, links not followed, and the time of its newest one."""
    size, newest = 0, 0.0
    for here, _, files in os.walk(folder):
        for name in files:
            try:
                found = Path(here, name).lstat()
            except OSError:  # removed meanwhile
                continue
            size, newest = size + found.st_size, max(newest, found.st_mtime)
    return size, newest
