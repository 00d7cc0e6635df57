"""Marks of versions that a server did not load, or that answered wrongly: `csg deploy --rollback` passes them over."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

from csg.errors import InputError, one_line
from csg_serve.triton.config import CONFIG, ENCODED_PARAMETER, read_config, served_version

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


def mark_served(repository: Path, model: str, reason: str | None) -> None:
    """Mark the version that is served as failed, for `csg deploy --rollback`; or remove the mark.

    Args:
        repository: the model repository.
        model: name of a model, or of the `<name>_encoded` of one; of another program's model nothing is noted.
        reason: why the version failed; None if it works.
    """
    config = read_config(repository / model / CONFIG)
    if config and ENCODED_PARAMETER in config.parameters:
        model = config.parameters[ENCODED_PARAMETER].string_value
    with suppress(InputError):
        version = served_version(repository / model)
        if reason:
            mark_failed(repository / model, version, reason)
        else:
            clear_failed(repository / model, version)
