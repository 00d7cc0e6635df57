"""`csg runs remove` and `csg runs prune`: run folders, and parts of them, that may go."""

from __future__ import annotations

import os
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from csg.console import ask, log, print_json, show_names_table
from csg.did_you_mean import use_one_of
from csg.errors import CsgError, InputError, UsageError
from csg.files import LOCK
from csg.locks import is_locked, lock
from csg.sizes import size_text
from csg_train.runs.finding import find_runs, require_run
from csg_train.runs.references import references
from csg_train.runs.summary import RunSummary, read_summary
from csg_train.training.run_files import CHECKPOINTS, RECIPE, WRITTEN, WRITTEN_PREFIXES

KINDS = {
    "stopped": "stopped run, which can be resumed",
    "diverged": "diverged run",
    "checkpoints": "checkpoints of a finished run",
}
"""What `csg runs prune` removes, and what its table calls it."""


@dataclass(frozen=True)
class Removal:
    """Something to remove."""

    run: RunSummary
    """The run that it is, or belongs to."""
    path: Path
    """The run folder, or the folder of its checkpoints."""
    why: str
    """What it is, for a table."""
    size_bytes: int
    """What it frees."""


def remove_command(folders: Sequence[Path], yes: bool, as_json: bool) -> None:
    """Remove run folders; all are checked before the first one is removed.

    Args:
        folders: the runs.
        yes: do not ask.
        as_json: print one JSON object.

    Raises:
        UsageError: one is a link, or a process works in it.
        InputError: one is not a run, or holds files that csg did not write.
    """
    for folder in folders:
        _check_removable(folder)
    once = {folder.resolve(): folder for folder in folders}
    runs = [read_summary(folder) for folder in once.values()]
    _remove([Removal(run, Path(run.path), run.state, run.size_bytes) for run in runs], yes, as_json)


def prune_command(folders: Sequence[Path], only: Sequence[str], yes: bool, *, as_json: bool) -> None:
    """Remove what stopped and diverged runs, and trainings that were killed at their end, have left.

    Args:
        folders: with the runs.
        only: what to remove; none: all of KINDS.
        yes: do not ask.
        as_json: print one JSON object.

    Raises:
        UsageError: a kind does not exist, or nobody can be asked.
    """
    for kind in only:
        if kind not in KINDS:
            raise UsageError(f"--only {kind} is nothing to remove", use_one_of(kind, KINDS))
    kinds = tuple(only) or tuple(KINDS)
    removals = []
    for removal in filter(None, (_prunable(run, kinds) for run in find_runs(folders))):
        try:
            _check_removable(Path(removal.run.path))
            removals.append(removal)
        except CsgError as error:
            log(f"left: {error.message}")
    if not removals and not as_json:
        log("there is nothing to remove")
        return
    _remove(removals, yes, as_json)


def _prunable(run: RunSummary, kinds: Sequence[str]) -> Removal | None:
    """What of a run is of one of these kinds."""
    folder, left = Path(run.path), Path(run.path, CHECKPOINTS)
    if run.state in kinds:
        return Removal(run, folder, KINDS[run.state], run.size_bytes)
    if "checkpoints" in kinds and run.state == "finished" and left.is_dir() and not left.is_symlink():
        return Removal(run, left, KINDS["checkpoints"], sum(file.lstat().st_size for file in left.iterdir()))
    return None


def _check_removable(folder: Path) -> None:
    if folder.is_symlink():
        raise UsageError(f"{folder} is a link", f"name the folder that it leads to: {folder.resolve()}")
    require_run(folder)
    foreign = sorted(entry.name for entry in folder.iterdir() if not _is_written(entry.name))
    if foreign:
        more = f" and {len(foreign) - 3} more" if len(foreign) > 3 else ""
        raise InputError(
            f"{folder} holds files that no training writes: {', '.join(foreign[:3])}{more}",
            "move them to another folder first",
        )
    if is_locked(folder / LOCK):
        raise UsageError(f"a process is working in {folder}", "stop it with Ctrl-C, or wait until it has finished")


def _is_written(name: str) -> bool:
    return name in WRITTEN or name.startswith(WRITTEN_PREFIXES)


def _remove(removals: Sequence[Removal], yes: bool, as_json: bool) -> None:
    """Show what would be removed, ask, and remove it."""
    total = sum(removal.size_bytes for removal in removals)
    if not as_json:
        rows = [(str(removal.path), removal.why, size_text(removal.size_bytes)) for removal in removals]
        show_names_table(f"to remove: {size_text(total)}", {"folder": "left", "what": "left", "size": "right"}, rows)
    for removal in removals:
        if removal.path == Path(removal.run.path):
            for reference in references(removal.run):
                log(f"{removal.path}: {reference}")
    if removals and not ask(f"remove this and free {size_text(total)}", yes):
        log("nothing is removed")
        return
    for removal in removals:
        _remove_folder(removal)
    if as_json:
        print_json({"removed": [str(removal.path) for removal in removals], "freed_bytes": total})
    else:
        log(f"removed; {size_text(total)} freed")


def _remove_folder(removal: Removal) -> None:
    """Remove a folder while its run is locked; the recipe goes last, so that what a kill leaves is still a run."""
    folder = Path(removal.run.path)
    with lock(folder / LOCK) as free:
        if not free:
            raise UsageError(f"a process has begun to work in {folder}", "stop it, and remove the others again")
        if removal.path != folder:
            shutil.rmtree(removal.path)
            return
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name in (RECIPE, LOCK))
        for entry in entries:
            if entry.is_dir(follow_symlinks=False):
                shutil.rmtree(entry.path)
            else:
                Path(entry.path).unlink()
        folder.rmdir()
