"""Which candidates to label: a random order in which uncertain ones come early.

Shape letters: M candidates, K classes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from csg.estimates.candidates import Candidates, Floats, Ints
from csg.estimates.scores import ScoreFunction
from csg.estimates.spread import spread_numbers

FLOOR = 0.15
"""Share of the chances that is equal for all: no weight is more than 1 / FLOOR times that of random choice."""


def chances(candidates: Candidates, scores: Sequence[ScoreFunction]) -> Floats:
    """Relative chance of each candidate, (M,), with sum 1.

    Proportional to size times the standard deviation of its influence on the scores, by the model's calibrated
    probabilities (Zrnic and Candes 2024, eq. 5; Neyman 1934), mixed with a floor.
    """
    q = candidates.calibrated()
    matrix = candidates.column_sums(q)
    variance = np.zeros(len(q))
    for score in scores:
        influence = score(matrix)[1].T[candidates.predicted]
        own = candidates.size**2 * (np.sum(q * influence**2, 1) - np.sum(q * influence, 1) ** 2)
        variance += own / own.sum() if own.sum() > 0 else 0
    wanted, size = np.sqrt(np.maximum(variance, 0)), candidates.size / candidates.size.sum()
    wanted = wanted / wanted.sum() if wanted.sum() > 0 else size
    return np.asarray((1 - FLOOR) * wanted + FLOOR * size)


@dataclass(frozen=True)
class Order:
    """Priority sampling (Duffield, Lund and Thorup 2007): any first part of the order is a sample."""

    chances: Floats
    """Relative chance of each candidate, (M,), positive."""
    keys: Floats
    """Uniform random number / chance, (M,): the smallest comes first."""

    @property
    def rows(self) -> Ints:
        """Indices of the candidates, in the order in which they are labelled."""
        return np.argsort(self.keys, kind="stable").astype(np.int64)

    def inclusion(self, count: int) -> Floats:
        """Inclusion probability of each candidate among the first `count`, (M,), given the key of the next one.

        With 1 / inclusion as weights, sums over the first `count` are unbiased, and uncorrelated between candidates.
        """
        if count >= len(self.keys):
            return np.ones(len(self.keys))
        threshold = np.partition(self.keys, count)[count]
        return np.asarray(np.minimum(1, self.chances * threshold))


def draw_order(chance: Floats, seed: int, chain: Ints | None = None) -> Order:
    """A random order of the candidates; the same for the same chances, seed and chain.

    Args:
        chance: relative chance of each candidate, (M,).
        seed: seed of the random numbers.
        chain: the candidates in an order in which neighbours are alike, (M,): these share out the random numbers. None
            draws independent ones.

    Example:
        >>> draw_order(np.array([0.5, 0.3, 0.2]), seed=0).rows
        array([2, 1, 0])
    """
    random = np.random.default_rng(seed)
    if chain is None:
        return Order(chance, (1 - random.random(len(chance))) / chance)
    numbers = np.empty(len(chance))
    numbers[chain] = spread_numbers(len(chance), random)
    return Order(chance, (1 - numbers) / chance)
