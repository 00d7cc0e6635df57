"""The bundle: the folder that `csg export` writes and `csg deploy` reads.

card.json     the model card
model.onnx    the student alone, normalisation inside
labels.txt    one class a line, in the order of the logits
SHA256SUMS    of the other files, as sha256sum -c reads it
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path

from csg.card import ModelCard, parse_card
from csg.errors import InputError, PromiseError
from csg.files import new_folder, sha256

CARD, MODEL, LABELS, SUMS = "card.json", "model.onnx", "labels.txt", "SHA256SUMS"


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files have been checked."""

    path: Path
    card: ModelCard

    @property
    def model(self) -> Path:
        """The ONNX file."""
        return self.path / MODEL

    @property
    def labels(self) -> Path:
        """The class names, one a line."""
        return self.path / LABELS


def write_bundle(path: Path, card: ModelCard, model: bytes) -> Bundle:
    """Write a bundle in one move: it is there whole, or not at all.

    Raises:
        InputError: `path` exists already.
    """
    if path.exists():
        raise InputError(f"{path} exists already", "name another folder with --out, or remove it")
    with new_folder(path) as fresh:
        (fresh / CARD).write_text(card.to_json(indent=2) + "\n")
        (fresh / MODEL).write_bytes(model)
        (fresh / LABELS).write_text("".join(f"{name}\n" for name in card.classes))
        sums = (f"{sha256(fresh / name)}  {name}\n" for name in (CARD, MODEL, LABELS))
        (fresh / SUMS).write_text("".join(sums))
    return Bundle(path, card)


def read_bundle(path: Path) -> Bundle:
    """Open a bundle and check every file against its SHA-256.

    Raises:
        InputError: this is no bundle, or a file is missing.
        PromiseError: a file was changed after the export.
    """
    for name in (CARD, MODEL, LABELS, SUMS):
        if not (path / name).is_file():
            raise InputError(f"{path} is no whole bundle: {name} is missing", "make one with `csg export`")
    listed = dict(reversed(line) for line in re.findall(r"^([0-9a-f]{64})  (\S+)$", (path / SUMS).read_text(), re.M))
    for name in (CARD, MODEL, LABELS):
        if listed.get(name) != sha256(path / name):
            raise PromiseError(f"{path / name} does not match its SHA-256 in {SUMS}", "export the run again")
    return Bundle(path, parse_card((path / CARD).read_bytes(), str(path / CARD)))


def newest_bundle(folder: Path) -> Path:
    """The bundle below `folder` that was written last.

    Raises:
        InputError: there is none.
    """
    cards = sorted(folder.glob(f"[!.]*/{CARD}"), key=lambda card: card.stat().st_mtime_ns)
    if not cards:
        raise InputError(f"no bundle in {folder}/", "run `csg export` first, or name the bundle's folder")
    return cards[-1].parent
