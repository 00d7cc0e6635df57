"""A version in a model's folder of a repository: there as a whole or not at all, served once it is pointed at."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from csg.files import atomic_directory, atomic_write


def add_version(home: Path, version: int, fill: Callable[[Path], None], beside: Mapping[str, bytes]) -> None:
    """Add a version to the model folder `home` and point at it, or make the folder with it, in one move.

    Args:
        fill: writes the version's files into a folder.
        beside: as `point_at`.
    """
    if home.exists():
        with atomic_directory(home / str(version)) as fresh:
            fill(fresh)
        point_at(home, beside)
    else:
        with atomic_directory(home) as fresh:
            (fresh / str(version)).mkdir()
            fill(fresh / str(version))
            for name, content in beside.items():
                (fresh / name).write_bytes(content)


def point_at(home: Path, beside: Mapping[str, bytes]) -> None:
    """Replace the files beside the versions, by name; the last, `config.pbtxt`, makes its version the served one."""
    for name, content in beside.items():
        atomic_write(home / name, content)
