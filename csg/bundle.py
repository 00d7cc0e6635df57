"""The bundle: the folder that `csg export` writes and `csg deploy` reads.

card.json        the model card
model.onnx       the student alone, normalisation inside
model.onnx.data  its weights, where they are too large for one protobuf message
model.plan       the engine of a bundle for TensorRT, built from model.onnx
labels.txt       one class a line, in the order of the logits
SHA256SUMS       of the other files, as sha256sum -c reads it
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from csg.card import ModelCard, parse_card
from csg.errors import InputError, VerificationError
from csg.files import atomic_directory, sha256

CARD, MODEL, LABELS, SUMS = "card.json", "model.onnx", "labels.txt", "SHA256SUMS"
WEIGHTS, PLAN = "model.onnx.data", "model.plan"


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
    def graph(self) -> list[Path]:
        """The ONNX file, and its weights if they stand aside."""
        return [self.path / name for name in (MODEL, WEIGHTS) if (self.path / name).is_file()]

    @property
    def plan(self) -> Path | None:
        """The engine, of a bundle that has one."""
        return self.path / PLAN if self.card.engine else None

    @property
    def labels(self) -> Path:
        """The class names, one a line."""
        return self.path / LABELS


def write_bundle(path: Path, card: ModelCard, models: Mapping[str, bytes]) -> Bundle:
    """Write a bundle in one move: it is there whole, or not at all.

    Args:
        models: the contents of model.onnx, and of the files beside it, by name.

    Raises:
        InputError: `path` exists already.
    """
    if path.exists():
        raise InputError(f"{path} exists already", "name another folder with --out, or remove it")
    with atomic_directory(path) as fresh:
        (fresh / CARD).write_text(card.to_json(indent=2) + "\n")
        for name, content in models.items():
            (fresh / name).write_bytes(content)
        (fresh / LABELS).write_text("".join(f"{name}\n" for name in card.classes))
        sums = (f"{sha256(fresh / name)}  {name}\n" for name in (CARD, *models, LABELS))
        (fresh / SUMS).write_text("".join(sums))
    return Bundle(path, card)


def read_bundle(path: Path) -> Bundle:
    """Open a bundle and check every file against its SHA-256.

    Raises:
        InputError: this is no bundle, a file is missing or lies elsewhere, or it is of a newer csg.
        VerificationError: a file was changed after the export.
    """
    for name in (CARD, MODEL, LABELS, SUMS):
        _there(path, name)
    lines = (path / SUMS).read_text(errors="replace")
    listed = dict(reversed(line) for line in re.findall(r"^([0-9a-f]{64})  (\S+)$", lines, re.M))
    for name in (CARD, MODEL, WEIGHTS, PLAN, LABELS):
        if name in (WEIGHTS, PLAN) and name not in listed and not (path / name).exists():
            continue
        if listed.get(name) != sha256(_there(path, name)):
            raise VerificationError(f"{path / name} does not match its SHA-256 in {SUMS}", "export the run again")
    card = parse_card((path / CARD).read_bytes(), str(path / CARD))
    if card.engine:
        _there(path, PLAN)
    return Bundle(path, card)


def _there(path: Path, name: str) -> Path:
    if not (path / name).is_file():
        raise InputError(f"{path} is no whole bundle: {name} is missing", "make one with `csg export`")
    if not (path / name).resolve().is_relative_to(path.resolve()):
        raise InputError(f"{path / name} is a link that leads out of the bundle", "put the file itself there")
    return path / name


def newest_bundle(folder: Path) -> Path:
    """The bundle below `folder` that was written last.

    Raises:
        InputError: there is none.
    """
    cards = sorted(folder.glob(f"[!.]*/{CARD}"), key=lambda card: card.stat().st_mtime_ns)
    if not cards:
        raise InputError(f"no bundle in {folder}/", "run `csg export` first, or name the bundle's folder")
    return cards[-1].parent
