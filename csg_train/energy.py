"""Hyperspherical energy (docs/method.md section 9): how diverse embeddings are; lower is more diverse."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

EXACT_UP_TO = 20_000  # embeddings
BLOCK = 1024
NEAREST = 1e-4  # distances below count as this


@dataclass(frozen=True)
class Energy:
    """E_s for s = 0, 1, 2.

    embeddings: how many were compared. sampled: whether these are a sample. clamped: pairs nearer than 1e-4.
    """

    E_0: float
    E_1: float
    E_2: float
    embeddings: int
    sampled: bool
    clamped: int

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def hyperspherical_energy(embeddings: np.ndarray, seed: int = 0) -> Energy | None:
    """Mean over pairs i != j of f_s(|v_i - v_j|): 1/z, 1/z^2, and log(1/z) for s = 0; v normalised to unit length.

    Args:
        embeddings: float (N, C). Above 20,000 rows a sample of that many is taken, drawn with `seed`.

    Returns:
        None for fewer than two embeddings, which have no pair.
    """
    total = len(embeddings)
    if total < 2:
        return None
    if total > EXACT_UP_TO:
        embeddings = embeddings[np.sort(np.random.default_rng(seed).choice(total, EXACT_UP_TO, replace=False))]
    v = F.normalize(torch.as_tensor(embeddings, dtype=torch.float64), dim=1)
    sums, clamped = torch.zeros(3, dtype=torch.float64), 0
    for start in range(0, len(v), BLOCK):
        block = v[start : start + BLOCK]
        square = 2 - 2 * block @ v.T
        square[torch.arange(len(block)), torch.arange(start, start + len(block))] = torch.inf
        clamped += int((square < NEAREST**2).sum())
        inverse = square.clamp_min(NEAREST**2).reciprocal()  # of an embedding with itself: 0
        log = torch.where(inverse > 0, inverse, 1).log() / 2
        sums += torch.stack([log.sum(), inverse.sqrt().sum(), inverse.sum()])
    e_0, e_1, e_2 = (sums / (len(v) * (len(v) - 1))).tolist()
    return Energy(e_0, e_1, e_2, len(v), total > EXACT_UP_TO, clamped // 2)
