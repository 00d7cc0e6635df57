"""The bundle: the folder that `csg export` writes and `csg deploy` reads.

card.json        the model card
model.onnx       the trained network, preprocessing inside
model.onnx.data  its weights, if they are too large for one protobuf message
model.plan       the engine, in a bundle for TensorRT
labels.txt       the class names, one a line, in the order of the logits
README.md        the card for people, as Hugging Face shows it; missing in bundles of an older csg
golden.json      a few images and PyTorch's answers (csg.golden); missing in bundles of an older csg
SHA256SUMS       checksums of the other files, for `sha256sum -c`
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from csg.card import ModelCard, parse_card
from csg.datasets.listing import is_hidden
from csg.errors import InputError, VerificationError
from csg.files import LOCK, atomic_directory, sha256
from csg.folders import wrong_folder
from csg.golden import GoldenAnswers, parse_golden
from csg.graph import check_graph_fits

BUNDLES = Path("bundles")
"""Where `csg export` writes bundles, unless another folder is named."""
CARD, MODEL, LABELS, SUMS = "card.json", "model.onnx", "labels.txt", "SHA256SUMS"
WEIGHTS, PLAN, GOLDEN, README = "model.onnx.data", "model.plan", "golden.json", "README.md"
OPTIONAL = (WEIGHTS, PLAN, GOLDEN)
FILES = (CARD, MODEL, *OPTIONAL, LABELS, README, SUMS)
"""All files that a bundle may have."""
HUB = (".gitattributes", ".git", ".cache")
"""What a download from Hugging Face, or a clone, has beside them; nobody reads it."""


@dataclass(frozen=True)
class Bundle:
    """A bundle whose files match their checksums."""

    path: Path
    """The folder."""
    card: ModelCard
    """The model card."""
    golden: GoldenAnswers | None = None
    """The golden answers; None in a bundle of an older csg."""

    @property
    def model(self) -> Path:
        """The ONNX file."""
        return self.path / MODEL

    @property
    def graph_files(self) -> list[Path]:
        """The ONNX file, and the file of its weights if there is one."""
        return [self.path / name for name in (MODEL, WEIGHTS) if (self.path / name).is_file()]

    @property
    def plan(self) -> Path | None:
        """The engine, if the bundle has one."""
        return self.path / PLAN if self.card.engine else None

    @property
    def files(self) -> list[Path]:
        """All its files."""
        return [self.path / name for name in FILES if (self.path / name).is_file()]

    @property
    def labels(self) -> Path:
        """The class names, one a line."""
        return self.path / LABELS


def write_bundle(
    path: Path,
    card: ModelCard,
    models: Mapping[str, bytes | Path],
    golden: GoldenAnswers | None = None,
    *,
    readme: str | None = None,
) -> Bundle:
    """Write a bundle atomically.

    Args:
        path: the folder to create.
        card: the model card.
        models: the model files by name: model.onnx, and model.onnx.data or model.plan. Their content, or a file of it,
            which is moved.
        golden: the golden answers.
        readme: the content of README.md.

    Raises:
        InputError: `path` exists and is not empty, or `read_bundle` would refuse the card or the graph.
    """
    content = card.to_json(indent=2) + "\n"
    parse_card(content, CARD)  # no field of a copied card was checked
    with atomic_directory(path) as folder:
        (folder / CARD).write_text(content)
        for name, model in models.items():
            if isinstance(model, Path):
                shutil.move(model, folder / name)
            else:
                (folder / name).write_bytes(model)
        check_graph_fits(folder / MODEL, card, path / MODEL)
        (folder / LABELS).write_bytes(_labels(card))
        names = [CARD, *models, LABELS]
        if golden:
            (folder / GOLDEN).write_text(golden.to_json())
            names.append(GOLDEN)
        if readme is not None:
            (folder / README).write_text(readme, "utf-8")
            names.append(README)
        (folder / SUMS).write_text("".join(f"{sha256(folder / name)}  {name}\n" for name in names))
    return Bundle(path, card, golden)


def read_bundle(path: Path) -> Bundle:
    """Open a bundle, and verify the SHA-256 of every file.

    Raises:
        InputError: the folder is not a bundle, a file is missing or outside of it, a newer csg has written it, or the
            card does not describe the graph.
        VerificationError: a file does not match its checksum, or does not belong to a bundle.

    Example:
        >>> read_bundle(Path("bundles/digits-csg-1-fp16-1")).card.classes
        ('0', '1', '2', '3', '4', '5', '6', '7', '8', '9')
    """
    if not (path / CARD).is_file():
        raise wrong_folder(path, "bundle", f"it has no {CARD}; create one with `csg export`")
    for name in (CARD, MODEL, LABELS, SUMS):
        _existing(path, name)
    _check_no_others(path)
    listed = _sums(path / SUMS)
    for name in (CARD, MODEL, LABELS, *OPTIONAL):
        if name in OPTIONAL and name not in listed and not (path / name).exists():
            continue
        if listed.get(name) != sha256(_existing(path, name)):
            raise VerificationError(f"{path / name} does not match its SHA-256 in {SUMS}", "export the run again")
    if README in listed and listed[README] != sha256(_existing(path, README)):
        hint = f"restore it; or, if it is to be as it is, remove its line from {path / SUMS}"
        raise VerificationError(f"{path / README} does not match its SHA-256 in {SUMS}", hint)
    card = parse_card((path / CARD).read_bytes(), str(path / CARD))
    if (path / LABELS).read_bytes() != _labels(card):
        raise InputError(f"{path / LABELS} does not hold the classes of {CARD}, one a line", "export the run again")
    check_graph_fits(path / MODEL, card, path / MODEL)
    if card.engine:
        _existing(path, PLAN)
    golden = parse_golden((path / GOLDEN).read_bytes(), card, str(path / GOLDEN)) if GOLDEN in listed else None
    return Bundle(path, card, golden)


def _labels(card: ModelCard) -> bytes:
    return "".join(f"{name}\n" for name in card.classes).encode()


def _sums(file: Path) -> dict[str, str]:
    """The checksums by file name, with line breaks of any system, as `sha256sum` writes them."""
    lines = file.read_text(errors="replace")
    return {name: digest for digest, name in re.findall(r"^([0-9a-f]{64}) [ *](\S+)[ \r]*$", lines, re.M)}


def _check_no_others(path: Path) -> None:
    """Raise VerificationError if the folder has files that do not belong to a bundle."""
    others = sorted(entry.name for entry in path.iterdir() if entry.name not in (*FILES, *HUB, LOCK))
    if not others:
        return
    names = ", ".join(others[:3]) + (f" and {len(others) - 3} more" if others[3:] else "")
    if all(is_hidden(name) for name in others):
        names += ", which the operating system or another program added"
    raise VerificationError(
        f"{path} has files that do not belong to a bundle: {names}", f"remove them, such as {path / others[0]}"
    )


def _existing(path: Path, name: str) -> Path:
    if not (path / name).is_file():
        raise InputError(f"{path} is not a complete bundle: {name} is missing", "create one with `csg export`")
    if not (path / name).resolve().is_relative_to(path.resolve()):
        raise InputError(
            f"{path / name} is a link to a file outside the bundle, as in the cache of Hugging Face",
            f"copy the bundle with its files: cp -rL {path} COPY",
        )
    return path / name


def newest_bundle(folder: Path) -> Path:
    """The bundle in `folder` that was written last.

    Raises:
        InputError: there is no bundle.
    """
    cards = sorted(folder.glob(f"[!.]*/{CARD}"), key=lambda card: card.stat().st_mtime_ns)
    if not cards:
        raise InputError(f"no bundle in {folder}/", "run `csg export` first, or name the bundle's folder")
    return cards[-1].parent
