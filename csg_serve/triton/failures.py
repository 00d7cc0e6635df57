"""Marks of versions that a server did not load, or that answered wrongly: `csg deploy --rollback` passes them over."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from csg.errors import one_line

FAILED = "failed.txt"
"""In the folder of a version that failed: why, on one line."""


def mark_failed(model_dir: Path, version: int, reason: str) -> None:
    """Note that a version of a model failed, if its folder can be written."""
    with suppress(OSError):
        (model_dir / str(version) / FAILED).write_text(one_line(reason) + "\n")


def clear_failed(model_dir: Path, version: int) -> None:
    """Remove the mark of a version that works."""
    with suppress(OSError):
        (model_dir / str(version) / FAILED).unlink()


def why_failed(model_dir: Path, version: int) -> str | None:
    """Return why a version failed; None if it did not, as far as is known."""
    try:
        return one_line((model_dir / str(version) / FAILED).read_text(errors="replace"))
    except OSError:
        return None
