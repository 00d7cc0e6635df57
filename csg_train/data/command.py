"""`csg data synth`: write an embedded synthetic dataset to a folder."""

from __future__ import annotations

from pathlib import Path

from csg.console import log, progress_bar
from csg.errors import UsageError
from csg.files import atomic_directory
from csg_train.data.synthetic_digits import write_digits
from csg_train.data.synthetic_scenes import write_scenes

KINDS = {"digits": write_digits, "digit-scenes": write_scenes}


def synth_command(kind: str, out: Path, count: int, seed: int) -> None:
    """Write the dataset.

    Args:
        kind: a key of KINDS.
        out: folder that does not exist yet.
        count: number of images.
        seed: of all random numbers.

    Raises:
        UsageError: the folder exists.
    """
    if out.exists():
        raise UsageError(f"{out} exists already", "name a folder that does not exist yet")
    with progress_bar(f"drawing {kind}", count) as advance, atomic_directory(out) as fresh:
        KINDS[kind](fresh, count, seed, advance)
    log(f"{count} images of {kind} in {out}")
