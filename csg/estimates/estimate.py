"""Scores from the labels of a sample, with 95 % intervals.

Shape letters: M candidates, n labelled ones, K classes.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy.special import stdtrit

from csg.estimates.candidates import Candidates, Floats, Ints, fit_calibration
from csg.estimates.scores import ScoreFunction

LEVEL = 0.95
"""Confidence of the intervals."""
FITTED = 8
"""Numbers that are fitted to the labels: mean, slope, temperature, mixture, and factors that are worth about four."""
ASSUMED_LABELS = 25.0
"""Labels that the model's own variance counts for, beside that of the labels."""
PRIOR = 1.0
"""Labels that the model's calibrated probabilities count for, in each predicted class of the confusion matrix."""
PRIOR_FACTOR = 3.0
"""Labels that they count for when the probabilities are corrected by predicted class."""
FOLDS = 5
"""Parts of the candidates; the probabilities of each part are corrected by the labels of the others."""


@dataclass(frozen=True)
class Estimate:
    """A score estimated from a sample."""

    value: float
    """The estimate, in 0..1."""
    low: float
    """Lower end of the 95 % interval."""
    high: float
    """Upper end."""
    standard_error: float
    """Standard error of `value`."""

    @property
    def half_width(self) -> float:
        """Half the length of the interval."""
        return (self.high - self.low) / 2


class LabelledSample:
    """The labels of a sample, from which every score is estimated.

    Args:
        candidates: all candidates.
        inclusion: inclusion probability of each, (M,).
        rows: indices of the labelled ones, (n,), n >= 1.
        true: their classes, (n,); -1: can't tell, which leaves the candidate out of every score.
    """

    def __init__(self, candidates: Candidates, inclusion: Floats, rows: Ints, true: Ints):
        told = true >= 0
        self.candidates, self.inclusion, self.rows, self.true = candidates, inclusion, rows[told], true[told]
        self.predicted = candidates.predicted[self.rows]
        self.weights = candidates.size[self.rows] / inclusion[self.rows]
        self.calibration = fit_calibration(candidates, self.rows, self.true, self.weights)
        calibrated = candidates.calibrated(self.calibration)
        found, model = np.zeros((candidates.classes,) * 2), candidates.column_sums(calibrated)
        np.add.at(found, (self.true, self.predicted), self.weights)
        with np.errstate(invalid="ignore"):
            self.matrix = self._matrix(found, model)
            self.probabilities = self._corrected(calibrated, np.nan_to_num(model / model.sum(0)))

    def _matrix(self, found: Floats, model: Floats) -> Floats:
        """The confusion matrix of all candidates, (K, K): of each predicted class its known size, split as its labels
        and PRIOR labels of the model's calibrated probabilities say; labels for all leave nothing to these."""
        known, unlabelled = model.sum(0), np.mean(self.weights - self.candidates.size[self.rows])
        split = found + PRIOR * unlabelled * np.nan_to_num(model / known)
        return np.asarray(np.nan_to_num(split / split.sum(0)) * known)

    def _corrected(self, calibrated: Floats, prior: Floats) -> Floats:
        """Calibrated probabilities times what the labels of the same predicted class say of each true class, (M, K).

        No label has a part in the factors of its own candidate: the labels of a fold are left out of its factors
        (Zrnic and Candes 2024, Cross-prediction-powered inference).

        Args:
            calibrated: probabilities of the true class, (M, K).
            prior: their means by predicted class, (K, K), rows: true.
        """
        fold = np.random.default_rng(0).permutation(len(calibrated)) % FOLDS
        factors = np.empty((FOLDS, *prior.shape))
        for one in range(FOLDS):
            others = fold[self.rows] != one
            found, expected = PRIOR_FACTOR * np.mean(self.weights) * np.stack([prior, prior])
            np.add.at(found, (self.true[others], self.predicted[others]), self.weights[others])
            np.add.at(expected.T, self.predicted[others], calibrated[self.rows[others]] * self.weights[others, None])
            factors[one] = (found / expected).T
        corrected = calibrated * factors[fold, self.candidates.predicted]
        return np.asarray(corrected / corrected.sum(1, keepdims=True))

    @cached_property
    def _variances(self) -> Floats:
        """Variance of each cell of the weighted confusion matrix, as the model expects it, (K, K)."""
        q, open_share = self.probabilities, (1 - self.inclusion) / self.inclusion
        return self.candidates.column_sums(q * (1 - q) * (self.candidates.size * open_share)[:, None])

    def estimate(self, score: ScoreFunction, classes: int = 0) -> Estimate:
        """A score of all candidates: the score of `matrix`, corrected by the weighted labels (one-step estimator), less
        the bias that a score has since it is no linear function of the matrix (second order of the delta method).

        Args:
            score: the score.
            classes: number of classes of which it is a mean: as many more numbers are fitted to the labels.
        """
        value, gradient, curvature = score(self.matrix)
        influence = gradient.T[self.candidates.predicted]
        expected = np.einsum("mk,mk->m", self.probabilities, influence)
        spread = np.maximum(np.einsum("mk,mk,mk->m", self.probabilities, influence, influence) - expected**2, 0)
        own, mine = gradient[self.true, self.predicted], expected[self.rows]
        slope = _slope(mine, own, self.weights * self.weights)
        size, share = self.candidates.size, self.weights / self.weights.sum()
        left = own - slope * mine
        rest = share @ left
        value += slope * (size @ expected) + size.sum() * rest
        n = len(self.rows)
        design = size.sum() ** 2 * np.sum(share**2 * (1 - self.inclusion[self.rows]) * (left - rest) ** 2)
        assumed = np.sum(size**2 * (1 - self.inclusion) / self.inclusion * spread)
        design *= n / max(n - FITTED - classes, n / 2)
        variance = max(design, (design * n + assumed * ASSUMED_LABELS) / (n + ASSUMED_LABELS))
        if self.candidates.sampled:
            variance += size.sum() ** 2 * (share @ (own - share @ own) ** 2) / len(size)
        unbiased = float(value - np.sum(curvature * self._variances) / 2)
        return _interval((unbiased, float(value)), float(variance), 1 / float(share @ share))


def _slope(x: Floats, y: Floats, weights: Floats) -> float:
    """How much of the model's expectation to use, 0..1 (the power tuning of Angelopoulos et al. 2023b)."""
    centre = x - np.average(x, weights=weights)
    below = weights @ centre**2
    return float(np.clip(weights @ (centre * y) / below, 0, 1)) if below > 0 else 0.0


def _interval(values: tuple[float, float], variance: float, labels: float) -> Estimate:
    """Wilson's interval with the number of labels that a simple random sample would need for the same variance.

    Args:
        values: the estimate, and the same without the correction of its bias, which the interval holds too.
        variance: its variance.
        labels: effective number of labels (Kish 1965). Errors are rare, and seldom normal: the variance is as uncertain
            as one of normal values with a third as many degrees of freedom.
    """
    value, plain = np.clip(values, 0, 1).tolist()
    quantile = float(stdtrit(max(labels / 3 - 1, 1), (1 + LEVEL) / 2))
    inner = (labels * value + 2) / (labels + 4)
    z2 = quantile**2 * variance / (inner * (1 - inner))
    middle = (value + z2 / 2) / (1 + z2)
    half = np.sqrt(z2 * value * (1 - value) + z2**2 / 4) / (1 + z2)
    low, high = min(middle - half, value, plain), max(middle + half, value, plain)
    return Estimate(value, float(max(low, 0)), float(min(high, 1)), float(np.sqrt(variance)))
