"""Hyperspherical energy, a measure of how diverse embeddings are (docs/method.md section 9); lower is more diverse."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
import torch.nn.functional as F

EXACT_UP_TO = 20_000  # embeddings
BLOCK = 1024
MIN_DISTANCE = 1e-4
"""Smaller distances count as this."""


@dataclass(frozen=True)
class Energy:
    """E_s for s = 0, 1, 2."""

    E_0: float
    """Mean of log(1/z) over pairs at distance z."""
    E_1: float
    """Mean of 1/z."""
    E_2: float
    """Mean of 1/z^2."""
    embeddings: int
    """How many embeddings were compared."""
    sampled: bool
    """Whether they are a sample."""
    clamped: int
    """Pairs nearer than 1e-4, which count as 1e-4 apart."""


def hyperspherical_energy(embeddings: np.ndarray, seed: int = 0) -> Energy | None:
    """Mean over pairs i != j of f_s(|v_i - v_j|): 1/z, 1/z^2, and log(1/z) for s = 0; v normalised to unit length.

    Args:
        embeddings: float (N, C). Of more than 20,000 rows, a sample of that size is compared.
        seed: of the sample.

    Returns:
        None for fewer than two embeddings, or if one is NaN or infinite.
    """
    total = len(embeddings)
    if total < 2 or not np.isfinite(embeddings).all():
        return None
    if total > EXACT_UP_TO:
        embeddings = embeddings[np.sort(np.random.default_rng(seed).choice(total, EXACT_UP_TO, replace=False))]
    v = F.normalize(torch.as_tensor(embeddings, dtype=torch.float64), dim=1)
    sums, clamped = torch.zeros(3, dtype=torch.float64), 0
    for start in range(0, len(v), BLOCK):
        block = v[start : start + BLOCK]
        square = 2 - 2 * block @ v.T
        square[torch.arange(len(block)), torch.arange(start, start + len(block))] = torch.inf
        clamped += int((square < MIN_DISTANCE**2).sum())
        inverse = square.clamp_min(MIN_DISTANCE**2).reciprocal()  # 0 for an embedding and itself
        log = torch.where(inverse > 0, inverse, 1).log() / 2
        sums += torch.stack([log.sum(), inverse.sqrt().sum(), inverse.sum()])
    e_0, e_1, e_2 = (sums / (len(v) * (len(v) - 1))).tolist()
    return Energy(E_0=e_0, E_1=e_1, E_2=e_2, embeddings=len(v), sampled=total > EXACT_UP_TO, clamped=clamped // 2)
