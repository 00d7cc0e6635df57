"""The images or points that could be labelled, and what the model says about them.

Shape letters: M candidates, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Ints = NDArray[np.int64]
TEMPERATURES = (1.0, 1.25, 1.6, 2.2, 3.2, 5.0)
MIXTURES = (0.01, 0.02, 0.035, 0.06, 0.12, 0.25, 0.5)
"""The calibrations that are tried."""


@dataclass(frozen=True)
class Calibration:
    """How the model's probabilities become probabilities of the true class."""

    temperature: float = 1.25
    """Softmax temperature (Guo et al. 2017)."""
    mixture: float = 0.02
    """Share of the mean over all candidates that is mixed in: no candidate is ever certain."""


ASSUMED = Calibration()
"""Before there are labels."""


@dataclass(frozen=True)
class Candidates:
    """What can be asked about, one row each."""

    size: Floats
    """What each stands for, (M,): 1 for an image, pixels for a point of an image."""
    probabilities: Floats
    """The model's probability of each class, (M, K); rows sum to 1."""
    predicted: Ints
    """The class that the model answers, (M,)."""
    sampled: bool = False
    """Whether the candidates are themselves a random sample, as points of images are."""
    place: Floats | None = None
    """Where each point is, (M, 2): x and y as shares of the sides of its image; only the order needs it."""

    @property
    def classes(self) -> int:
        """Number of classes."""
        return int(self.probabilities.shape[1])

    def tempered(self, temperature: float, rows: Ints | slice = slice(None)) -> Floats:
        """The probabilities at a softmax temperature, (rows, K)."""
        sharp = np.exp(self._logs[rows] / temperature)
        return np.asarray(sharp / sharp.sum(1, keepdims=True))

    def calibrated(self, calibration: Calibration = ASSUMED) -> Floats:
        """Probabilities of the true class, (M, K): none is 0."""
        mixture = calibration.mixture
        return np.asarray((1 - mixture) * self.tempered(calibration.temperature) + mixture * self.mean_class)

    @cached_property
    def _logs(self) -> Floats:
        return np.asarray(np.log(np.maximum(self.probabilities, 1e-6)))

    @cached_property
    def mean_class(self) -> Floats:
        """Mean probabilities over all candidates, half of it equal for all classes, (K,)."""
        mean = self.size @ self.probabilities / self.size.sum()
        return np.asarray((mean + 1 / self.classes) / 2)

    @cached_property
    def _of_class(self) -> Floats:
        """The size of each candidate in the column of its predicted class, (M, K)."""
        return np.asarray(np.eye(self.classes)[self.predicted] * self.size[:, None])

    def column_sums(self, values: Floats) -> Floats:
        """Sums of values (M, K), times their size, over the candidates of each predicted class: (K, K), rows: true."""
        return np.asarray(values.T @ self._of_class)


def fit_calibration(candidates: Candidates, rows: Ints, true: Ints, weights: Floats) -> Calibration:
    """The calibration that makes labels most probable, of a small grid; few labels change the assumed one little.

    Args:
        candidates: all candidates.
        rows: indices of the labelled ones, (n,).
        true: their classes, (n,).
        weights: 1 / inclusion probability, (n,), of any scale.
    """
    share = weights * (len(rows) / weights.sum())
    place, best = np.arange(len(rows)), (-np.inf, ASSUMED)
    for temperature in TEMPERATURES:
        sharp, mean = candidates.tempered(temperature, rows)[place, true], candidates.mean_class[true]
        for mixture in MIXTURES:
            tried = Calibration(temperature, mixture)
            distance = np.log(temperature / ASSUMED.temperature) ** 2 + np.log(mixture / ASSUMED.mixture) ** 2
            fit = float(share @ np.log((1 - mixture) * sharp + mixture * mean) - distance / 2)
            best = max(best, (fit, tried), key=lambda one: one[0])
    return best[1]
