"""`csg data synth`: write an embedded synthetic dataset to a folder."""

from __future__ import annotations

from pathlib import Path

from csg.console import log, progress_bar
from csg.errors import UsageError
from csg.files import atomic_directory
from csg_train.data.synthetic_digits import SYNTHETIC_DIGITS
from csg_train.data.synthetic_scenes import DIGIT_SCENES

KINDS = {dataset.name: dataset for dataset in (SYNTHETIC_DIGITS, DIGIT_SCENES)}


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
        KINDS[kind].write(fresh, count, seed, advance)
    log(f"{count} images of {kind} in {out}")
