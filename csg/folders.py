"""What kind of folder a path is, so that a command that needs another one can say so."""

from __future__ import annotations

import os
from pathlib import Path

from csg.errors import InputError

KINDS = {
    "recipe.yaml": ("run", "export it with `csg export {path}`"),
    "card.json": ("bundle", "deploy it with `csg deploy {path}`"),
    "model.onnx": ("bundle", "deploy it with `csg deploy {path}`"),
    "plan.json": ("comparison", "its runs are in {path}/runs/"),
    "label-plan.json": ("label plan", "continue it with `csg evaluate --budget N --out {path}`"),
    "page.json": ("page", "show it with a web server: python -m http.server --directory {path}"),
    "evaluation.json": ("evaluation", "its figures are in {path}/result.json"),
    "bench.json": ("measurement", "its figures are in {path}/bench.json"),
}
"""The files that mark a kind of folder, its name, and what it is used for."""


def kind_of(path: Path) -> str | None:
    """What kind of folder a path is, "run" or "bundle" for example; None if it is of no known kind."""
    return next((kind for file, (kind, _) in KINDS.items() if os.path.isfile(path / file)), None)  # noqa: PTH113  no error for a long name


def wrong_folder(path: Path, wanted: str, hint: str) -> InputError:
    """The error for a path that is no folder of the wanted kind: it is missing, a file, or of another kind.

    Args:
        path: what the user named.
        wanted: the kind that is needed, such as "bundle".
        hint: what to do if it is of no known kind.
    """
    if not path.exists():
        return InputError(f"there is no folder {path}", "check the path")
    if not path.is_dir():
        return InputError(f"{path} is a file, not the folder of {_a(wanted)}", hint)
    for file, (kind, use) in KINDS.items():
        if kind != wanted and (path / file).is_file():
            return InputError(f"{path} is {_a(kind)}, not {_a(wanted)}", use.format(path=path))
    return InputError(f"{path} is not {_a(wanted)}", hint)


def _a(noun: str) -> str:
    """The noun with its article."""
    return f"{'an' if noun[0] in 'aeiou' else 'a'} {noun}"


def why_no_file(path: Path) -> str:
    """Why a path names no file: it is a folder, or nothing is there."""
    return "is a folder, not a file" if path.is_dir() else "does not exist"
