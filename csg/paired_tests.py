"""Two models on the same images: how far apart their scores are, and whether chance explains it.

Each difference is B's score minus A's. Its 95 % interval is Student's with the standard error of the paired bootstrap
over images (Efron and Tibshirani 1993, chapters 6 and 12): a sample has the same images for both models. Its degrees of
freedom are the images that tell the models apart, less one: all others add nothing to the difference or its spread. In
simulations (tests/unit/csg/test_paired_tests.py) the intervals contain the truth in 93 to 97 % of the cases.

For classifiers McNemar's exact test (McNemar 1947) gives the probability that images which one model alone gets right
are shared out at least as unevenly by chance.

Shape letters: N images, K classes, G groups of images that are counted alike.
"""

from __future__ import annotations

import math
from typing import Annotated, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from csg.bootstrap import Groups, bootstrap, mean_share
from csg.metrics import union_pixels
from csg.records import Record

ENOUGH = 6
"""Images that settle something at least: if all of fewer speak for one model, the exact test still has p > 0.05."""

SignedShare = Annotated[float, Field(ge=-1, le=1)]
Probability = Annotated[float, Field(ge=0, le=1)]
Verdict = Literal["better", "worse", "not settled"]
Pair = tuple[NDArray[np.int64], NDArray[np.int64]]
"""What a score of one model is the mean share of: right and whole, (G, K) each."""


class ScoreDifference(Record):
    """A score of two models on the same images, as shares; None where no image, or no pixel, has a class."""

    a: Probability | None
    """Score of model A."""
    b: Probability | None
    """Score of model B."""
    difference: SignedShare | None
    """B's score less A's: above 0, B is ahead."""
    low: SignedShare | None
    """Lower end of the 95 % interval of the difference; None where too few images tell the models apart."""
    high: SignedShare | None
    """Upper end."""


class PairedResult(Record):
    """How two models, A and B, differ on the same images."""

    images: Annotated[int, Field(ge=1)]
    """Images that both answered."""
    differing: Annotated[int, Field(ge=0)]
    """Images on which their answers differ."""
    only_a_right: Annotated[int, Field(ge=0)] | None
    """Images whose class A alone predicts correctly; None for segmenters."""
    only_b_right: Annotated[int, Field(ge=0)] | None
    """Images whose class B alone predicts correctly; None for segmenters."""
    p_value: Probability | None
    """Two-sided p of McNemar's exact test; None for segmenters."""
    differences: dict[str, ScoreDifference]
    """By name of the score, the main score first."""

    @property
    def main_score(self) -> str:
        """The score that decides: `mean_class_accuracy` or `miou`."""
        return next(iter(self.differences))

    @property
    def telling(self) -> int:
        """Images that tell the models apart: one alone is right; for segmenters, their pixels differ."""
        if self.only_a_right is None or self.only_b_right is None:
            return self.differing
        return self.only_a_right + self.only_b_right

    def verdict(self, score: str) -> Verdict:
        """Whether B is better or worse than A: the interval is above or below 0, and enough images tell them apart.

        Args:
            score: a key of `differences`.
        """
        found = self.differences[score]
        if self.telling < ENOUGH or found.low is None or found.high is None or found.low <= 0 <= found.high:
            return "not settled"
        return "better" if found.low > 0 else "worse"

    def not_worse(self, score: str, margin: float) -> bool:
        """Whether it is shown that B is behind A by less than a margin: the whole interval is above -margin.

        This is the usual test of non-inferiority (Piaggio et al. 2012). That the models do not differ significantly
        would show nothing: with few images no models do.

        Args:
            score: a key of `differences`.
            margin: the loss that does not matter, a share above 0.
        """
        low = self.differences[score].low
        return self.images >= ENOUGH and low is not None and low > -margin

    def images_needed(self, score: str, margin: float = 0) -> int | None:
        """About how many images would lift the interval above -margin, if the difference stayed as it is.

        Args:
            score: a key of `differences`.
            margin: 0 to show that B is better.

        Returns:
            None if no number would, or too few images tell the models apart to say.
        """
        found = self.differences[score]
        if found.difference is None or found.low is None or found.difference <= -margin or self.telling < ENOUGH:
            return None
        return math.ceil(self.images * ((found.difference - found.low) / (found.difference + margin)) ** 2)


def compare_classifications(
    labels: np.ndarray, predicted_a: np.ndarray, predicted_b: np.ndarray, seed: int = 0
) -> PairedResult:
    """Compare two classifiers on the same images.

    Args:
        labels: class of each image, int (N,), N >= 1.
        predicted_a: class that model A predicts for each, int (N,).
        predicted_b: the same of model B.
        seed: seed of the bootstrap.

    Returns:
        The differences of `mean_class_accuracy`, the main score, and of `accuracy`.

    Example:
        >>> found = compare_classifications(np.array([0, 1]), np.array([0, 0]), np.array([0, 1]))
        >>> found.differences["accuracy"].difference, found.p_value
        (0.5, 1.0)
    """
    assert labels.shape == predicted_a.shape == predicted_b.shape, (labels.shape, predicted_a.shape, predicted_b.shape)
    right_a, right_b = predicted_a == labels, predicted_b == labels
    classes, index = np.unique(labels, return_inverse=True)
    kinds, groups = np.unique(4 * index + 2 * right_a + right_b, return_inverse=True)
    whole = np.eye(len(classes), dtype=np.int64)[kinds // 4]
    by_class = (whole * (kinds // 2 % 2)[:, None], whole), (whole * (kinds % 2)[:, None], whole)
    only_a, only_b = int((right_a & ~right_b).sum()), int((right_b & ~right_a).sum())
    return PairedResult(
        images=len(labels),
        differing=int((predicted_a != predicted_b).sum()),
        only_a_right=only_a,
        only_b_right=only_b,
        p_value=mcnemar(only_a, only_b),
        differences=_differences(
            {"mean_class_accuracy": by_class, "accuracy": (_all_classes(by_class[0]), _all_classes(by_class[1]))},
            groups,
            only_a + only_b,
            seed=seed,
        ),
    )


def compare_confusions(matrices_a: np.ndarray, matrices_b: np.ndarray, seed: int = 0) -> PairedResult:
    """Compare two segmenters on the same images.

    Args:
        matrices_a: pixels of each image by class, of model A, int (N, K, K) or, with a last column for predictions
            that are none of the classes, (N, K, K + 1); N >= 1; rows: true, columns: predicted.
        matrices_b: the same of model B.
        seed: seed of the bootstrap.

    Returns:
        The differences of `miou`, the main score, and of `pixel_accuracy`.
    """
    assert matrices_a.shape == matrices_b.shape, (matrices_a.shape, matrices_b.shape)
    iou_a, iou_b, pixels_a, pixels_b = (*map(_iou, (matrices_a, matrices_b)), *map(_pixels, (matrices_a, matrices_b)))
    differing = int((matrices_a != matrices_b).any((1, 2)).sum())
    return PairedResult(
        images=len(matrices_a),
        differing=differing,
        only_a_right=None,
        only_b_right=None,
        p_value=None,
        differences=_differences(
            {"miou": (iou_a, iou_b), "pixel_accuracy": (pixels_a, pixels_b)},
            np.arange(len(matrices_a)),
            differing,
            seed=seed,
        ),
    )


def mcnemar(only_a: int, only_b: int) -> float:
    """Two-sided p of McNemar's exact test: a binomial test of the images that one model alone gets right."""
    from scipy.stats import binomtest  # here, since it takes a second that no other command needs

    return float(binomtest(only_a, only_a + only_b).pvalue) if only_a + only_b else 1.0


def _iou(matrices: np.ndarray) -> Pair:
    return matrices.diagonal(axis1=1, axis2=2), np.stack([union_pixels(matrix) for matrix in matrices])


def _pixels(matrices: np.ndarray) -> Pair:
    return _all_classes((matrices.diagonal(axis1=1, axis2=2), matrices.sum(2)))


def _all_classes(pair: Pair) -> Pair:
    """All classes as one, so that the mean share is the share of all images or pixels."""
    return pair[0].sum(1, keepdims=True), pair[1].sum(1, keepdims=True)


def _differences(
    scores: dict[str, tuple[Pair, Pair]], groups: Groups, telling: int, *, seed: int
) -> dict[str, ScoreDifference]:
    """The differences of some scores, with intervals of the same bootstrap samples."""

    def values(weights: NDArray[np.float64]) -> NDArray[np.float64]:
        return np.stack([mean_share(weights, *one) for pair in scores.values() for one in pair], axis=1)

    found = values(np.bincount(groups)[None].astype(np.float64))[0]
    draws = bootstrap(values, groups, seed) if telling else np.zeros((0, len(found)))
    return {
        name: _difference(found[place : place + 2], draws[:, place + 1] - draws[:, place], telling)
        for name, place in zip(scores, range(0, len(found), 2), strict=True)
    }


def _difference(scores: NDArray[np.float64], draws: NDArray[np.float64], telling: int) -> ScoreDifference:
    """The difference of a score of A and B, (2,); `draws` are those of the samples, NaN for samples without a class."""
    if not np.isfinite(scores).all():
        return ScoreDifference(a=None, b=None, difference=None, low=None, high=None)
    from scipy.special import stdtrit  # the quantiles of Student's distribution

    a, b = scores.tolist()
    draws = draws[np.isfinite(draws)]
    if not telling:
        return ScoreDifference(a=a, b=b, difference=b - a, low=0, high=0)
    if telling < ENOUGH and (len(draws) < 2 or np.ptp(draws) == 0):
        return ScoreDifference(a=a, b=b, difference=b - a, low=None, high=None)
    half = float(stdtrit(max(1, telling - 1), 0.975) * draws.std(ddof=1))
    return ScoreDifference(a=a, b=b, difference=b - a, low=max(-1.0, b - a - half), high=min(1.0, b - a + half))
