"""What lies in a model repository and is no model: `lost+found`, files, folders of other programs."""

from __future__ import annotations

import re
from collections.abc import Collection
from pathlib import Path

from csg.errors import InputError
from csg_serve.triton.config import CONFIG, read_config

OWN = re.compile(r"\.csg-.*|README.*", re.DOTALL)
"""Names of csg's own files, and of the repository's description, which are not worth a word."""


def check_entries(repository: Path) -> None:
    """Check that a repository holds a folder that may be a model, and nothing that Triton stumbles over.

    Raises:
        InputError: it does not exist or can't be read, there is no such folder, or a link leads nowhere.
    """
    try:
        entries = sorted(repository.iterdir())
    except OSError as error:
        raise InputError(f"no model in {repository}/: {error.strerror}", "add one with `csg deploy`") from None
    for entry in entries:
        try:
            entry.stat()
        except OSError as error:
            what = f"Triton reads no repository with {entry}: {error.strerror}"
            raise InputError(what, "remove it, or repair the link") from None
    if not any(_may_be_model(entry) for entry in entries):
        raise InputError(f"no model in {repository}/", "add one with `csg deploy`")


def is_model(folder: Path) -> bool:
    """Return whether a folder holds a model's configuration; a copy of a model under another name holds another's."""
    try:
        if not (folder / CONFIG).is_file():
            return False
    except OSError:  # another user's
        return False
    config = read_config(folder / CONFIG)
    return config is None or config.name in ("", folder.name)


def stray_names(repository: Path, models: Collection[str]) -> list[str]:
    """Return the names of entries that are no model's folder, nor among the models that Triton serves nevertheless."""
    others = (entry for entry in repository.iterdir() if entry.name not in models and not OWN.fullmatch(entry.name))
    return sorted(entry.name for entry in others if not is_model(entry))


def _may_be_model(entry: Path) -> bool:
    """Return whether an entry is a folder with a configuration or a version, which Triton may complete by itself."""
    try:
        return not entry.name.startswith(".") and any(
            inside.name == CONFIG or re.fullmatch("[0-9]+", inside.name) for inside in entry.iterdir()
        )
    except OSError:  # a file, or a folder of another user
        return False
