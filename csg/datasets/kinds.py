"""Which kind of data a source is: images of one class each, or images with masks."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from csg.datasets.cityscapes import is_cityscapes
from csg.datasets.list_files import read_list
from csg.datasets.segmentation import EMBEDDED_SCENES, LABELS_FILE
from csg.images import SUFFIXES


def task_of(source: str) -> Literal["cls", "seg"]:
    """The task that a source is for, as a training takes it; a source that does not exist is for cls.

    Args:
        source: a folder, a list file, or the name of an embedded dataset.
    """
    path = Path(source)
    if source == EMBEDDED_SCENES:
        return "seg"
    if path.is_file():
        _, *others = read_list(path).lines[0].fields
        return "seg" if any(field.lower().endswith(tuple(SUFFIXES)) for field in others) else "cls"
    scenes = (path / "images").is_dir() and ((path / "labels").is_dir() or (path / LABELS_FILE).is_file())
    return "seg" if scenes or is_cityscapes(path) else "cls"
