"""`csg data synth`: write an embedded synthetic dataset to a folder."""

from __future__ import annotations

from importlib import resources
from pathlib import Path

from csg.console import log, progress_bar
from csg.datasets.segmentation import LABELS_FILE
from csg.files import atomic_directory
from csg.locks import new_folder
from csg_train.data.synthetic_digits import SYNTHETIC_DIGITS
from csg_train.data.synthetic_scenes import DIGIT_SCENES

KINDS = {dataset.name: dataset for dataset in (SYNTHETIC_DIGITS, DIGIT_SCENES)}


def synth_command(kind: str, out: Path, count: int, seed: int) -> None:
    """Write the dataset.

    Args:
        kind: a key of KINDS.
        out: the folder, new or empty.
        count: number of images.
        seed: of all random numbers.

    Raises:
        UsageError: the folder is not empty, or another process is working in it.
    """
    with (
        new_folder(out, out.parent, out.name) as folder,
        atomic_directory(folder) as fresh,
        progress_bar(f"drawing {kind}", count) as advance,
    ):
        KINDS[kind].write(fresh, count, seed, advance)
        if kind == DIGIT_SCENES.name:  # what the masks mean, for `csg train seg`
            (fresh / LABELS_FILE).write_bytes((resources.files("csg.labelsets") / f"{kind}.yaml").read_bytes())
    log(f"{count} images of {kind} in {out}")
