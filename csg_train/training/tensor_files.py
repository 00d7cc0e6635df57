"""Files of named tensors, safetensors, with a SHA-256 of their content: a changed bit is found."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from csg.errors import InputError, VerificationError, one_line
from csg.files import atomic_write

DIGEST = "sha256"
"""Where the metadata of a file has its hash."""


def tensors_digest(tensors: Mapping[str, Tensor], notes: Mapping[str, str]) -> str:
    """SHA-256 over the names, types, shapes and bytes of tensors, and over notes, in hex; the order does not matter."""
    digest = hashlib.sha256(repr(sorted(notes.items())).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def write_tensors(path: Path, tensors: Mapping[str, Tensor], notes: Mapping[str, str]) -> None:
    """Write a file of tensors atomically.

    Args:
        path: of the file.
        tensors: by name, on any device.
        notes: what else the file says, by name.
    """
    plain = {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()}
    atomic_write(path, save(plain, {**notes, DIGEST: tensors_digest(plain, notes)}))


def read_tensors(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """The tensors of a file, and its notes.

    Raises:
        InputError: the file is missing or can't be read.
        VerificationError: the content is not that of the hash; a file of an older version has none.
    """
    if not path.is_file():
        raise InputError(f"{path} does not exist", "finish the run with --resume, or name another")
    try:
        with safe_open(path, "pt") as file:
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            notes = file.metadata() or {}
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path} is damaged: {one_line(error)}", "restore it, or train again") from None
    recorded = notes.pop(DIGEST, None)
    if recorded and tensors_digest(tensors, notes) != recorded:
        raise VerificationError(f"{path} is damaged: its SHA-256 is not {recorded[:12]}", "restore it, or train again")
    return tensors, notes
