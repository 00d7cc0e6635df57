"""Run folders below folders."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from csg.console import log
from csg.errors import InputError
from csg.folders import wrong_folder
from csg_train.runs.summary import RunSummary, read_summary
from csg_train.training.run_files import ENVIRONMENT, METRICS, RECIPE, RUNS


def is_run(folder: Path) -> bool:
    """Whether a folder is that of a run: it has a recipe, and what a training writes beside it."""
    found = [name for name in (RECIPE, ENVIRONMENT, METRICS) if (folder / name).is_file()]
    return len(found) > 1 and found[0] in (RECIPE, ENVIRONMENT)


def require_run(folder: Path) -> Path:
    """The folder, if it is that of a run.

    Raises:
        InputError: it is not.
    """
    if not is_run(folder):
        raise wrong_folder(folder, "run", "name a folder that `csg train` made; `csg runs` lists them")
    return folder


def find_runs(folders: Sequence[Path]) -> list[RunSummary]:
    """The runs in folders and below them, the newest first.

    Args:
        folders: each a run, or a folder with runs anywhere below it; none: `runs`.

    Raises:
        InputError: a folder does not exist, or there is no run in any of them.
    """
    folders = folders or (RUNS,)
    for folder in folders:
        if not folder.is_dir():
            what = f"{folder} is not a folder" if folder.exists() else f"there is no folder {folder}"
            raise InputError(what, "train a run with `csg train`, or name the folder of other runs")
    found = {run.resolve(): run for folder in folders for run in _below(folder)}
    if not found:
        raise InputError(f"there is no run in {', '.join(map(str, folders))}", "train one with `csg train`")
    return sorted(map(read_summary, found.values()), key=lambda run: (run.changed, run.path), reverse=True)


def _below(folder: Path) -> Iterator[Path]:
    """The runs in a folder; links to runs are listed, but no other links are followed."""
    if is_run(folder):
        yield folder
        return
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        log(f"{folder} can't be read: {error.strerror}")
        return
    for entry in entries:
        if entry.name.startswith(".") or not entry.is_dir():
            continue
        if not entry.is_symlink():
            yield from _below(folder / entry.name)
        elif is_run(folder / entry.name):
            yield folder / entry.name
