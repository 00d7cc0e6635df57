"""Parity: each stage of an export compared with the trained network in PyTorch, on the same prepared images.

Shape letters: K classes; N images, of a segmenter pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from scipy.special import log_softmax

from csg.errors import VerificationError
from csg.provenance import Parity, ParityStage
from csg_export.parity_images import HARD_INPUTS, ParityImages
from csg_export.runners import Predictions, Runner


class GraphRefused(VerificationError):
    """The converted graph is too far from the network; one that was converted more carefully may pass."""


@dataclass(frozen=True)
class Tolerance:
    """How far a stage may differ from PyTorch. A value that is not finite is outside every tolerance."""

    difference: float
    """Maximum difference of a logit, as a share of PyTorch's largest absolute logit (at least of 1)."""
    agreement: float
    """Minimum share of equal classes among the images, or pixels, that PyTorch decides by more than that difference."""
    total_agreement: float = 0.0
    """Minimum share of equal classes among all images or pixels."""


FINITE = Tolerance(difference=float("inf"), agreement=0.0)
"""Accepts every finite result."""


@dataclass(frozen=True)
class Stage:
    """One step of an export that can be run."""

    name: str
    """Shown in the table and kept in the card."""
    run: Runner
    """The network or graph of this step."""
    tolerance: Tolerance
    """On real images."""
    hard_tolerance: Tolerance
    """On hard inputs."""
    converted: bool = False
    """Whether it is made from the graph in its precision."""

    def tolerance_on(self, images: ParityImages) -> Tolerance:
        """The tolerance for these images."""
        return self.hard_tolerance if images.name == HARD_INPUTS else self.tolerance


class ParityStats:
    """Running totals of the comparison of one stage.

    Which class wins a near tie says nothing about the graph. Agreement is therefore required only where PyTorch's two
    largest logits differ by more than the tolerance: these images or pixels are `decided`.
    """

    def __init__(self, tolerance: Tolerance):
        self.tolerance = tolerance
        self.images = self.compared = self.equal = self.decided = self.decided_equal = 0
        self.sum_of_differences = self.sum_of_divergences = 0.0
        self.numbers = 0
        self.max_difference, self.largest_logit = 0.0, 1.0

    def add(self, images: int, expected: Predictions, got: Predictions) -> None:
        """Add the predictions for a batch of `images` images."""
        true_NK = expected.logits_NK
        self.largest_logit = max(self.largest_logit, float(np.abs(true_NK).max()))
        second_N, first_N = np.partition(true_NK, -2, axis=1)[:, -2:].T
        equal_N, decided_N = expected.classes_N == got.classes_N, first_N - second_N > self.max_allowed
        difference_NK = np.abs(true_NK - got.logits_NK)
        self.images += images
        self.compared += len(equal_N)
        self.equal += int(equal_N.sum())
        self.decided += int(decided_N.sum())
        self.decided_equal += int((equal_N & decided_N).sum())
        self.max_difference = max(self.max_difference, float(difference_NK.max()), key=_nan_last)
        self.sum_of_differences += float(difference_NK.sum(dtype=np.float64))
        self.numbers += difference_NK.size
        self.sum_of_divergences += float(_divergences(true_NK, got.logits_NK).sum())

    @property
    def max_allowed(self) -> float:
        """Maximum allowed difference of a logit, for the logits seen so far."""
        return self.tolerance.difference * self.largest_logit

    @property
    def passed(self) -> bool:
        """Whether the stage is within its tolerance."""
        if not np.isfinite(self.max_difference) or self.max_difference > self.max_allowed:
            return False
        enough_decided = self.decided_equal >= self.tolerance.agreement * self.decided
        return enough_decided and self.equal >= self.tolerance.total_agreement * self.compared

    def result(self, stage: str, source: str) -> ParityStage:
        """The figures for the card, of finite logits. `agreement` counts all images or pixels, near ties included."""
        return ParityStage(
            stage=stage,
            source=source,
            images=self.images,
            agreement=self.equal / self.compared,
            max_abs_diff=self.max_difference,
            mean_abs_diff=self.sum_of_differences / self.numbers,
            kl=self.sum_of_divergences / self.compared,
        )


def _nan_last(value: float) -> tuple[bool, float]:
    return value != value, value


def _divergences(true_NK: np.ndarray, got_NK: np.ndarray) -> np.ndarray:
    """KL(true || got) of the class probabilities, (N,), in nats."""
    log_p_NK = log_softmax(true_NK.astype(np.float64), axis=1)
    log_q_NK = log_softmax(got_NK.astype(np.float64), axis=1)
    return np.asarray((np.exp(log_p_NK) * (log_p_NK - log_q_NK)).sum(1))


def compare(
    reference: Runner, stages: Sequence[Stage], images: ParityImages, unreadable: list[str] | None = None
) -> dict[str, ParityStats]:
    """Run the reference and every stage on the images; statistics by the name of the stage.

    Args:
        reference: the trained network in PyTorch.
        stages: what is compared with it.
        images: to run both on.
        unreadable: filled with a line for each file that can't be read.

    Raises:
        VerificationError: a logit of the reference is not finite.
    """
    stats = {stage.name: ParityStats(stage.tolerance_on(images)) for stage in stages}
    for batch in images.batches(unreadable):
        expected = reference(batch)
        if not np.isfinite(expected.logits).all():
            raise VerificationError(
                f"the network's own logits are not finite on {images.name}", "train again with smaller learning rates"
            )
        for stage in stages:
            stats[stage.name].add(len(batch), expected, stage.run(batch))
    return stats


def check_parity(reference: Runner, stages: Sequence[Stage], images: Sequence[ParityImages]) -> Parity:
    """Compare every stage with PyTorch.

    Args:
        reference: the trained network in PyTorch.
        stages: the last one is what the bundle holds; its figures on the first images are the card's main figures.
        images: real ones if there are any, and hard inputs.

    Raises:
        GraphRefused: a stage of the converted graph is outside its tolerance.
        VerificationError: another stage is, or a logit of the network itself is not finite.
        InputError: no image can be read.
    """
    results: list[ParityStage] = []
    shipped: list[ParityStats] = []
    for source in images:
        unreadable: list[str] = []
        compared = compare(reference, stages, source, unreadable)
        source.report(unreadable)
        for stage in stages:
            stats = compared[stage.name]
            if not stats.passed:
                refusal = GraphRefused if stage.converted else VerificationError
                raise refusal(
                    _failure(stage.name, source.name, stats), "nothing was written; --tolerance sets the limit"
                )
            results.append(stats.result(stage.name, source.name))
        shipped.append(compared[stages[-1].name])
    figures, allowed = shipped[0].result(stages[-1].name, images[0].name), shipped[0].max_allowed
    return Parity(
        images=figures.images,
        source=figures.source,
        agreement=figures.agreement,
        max_abs_diff=figures.max_abs_diff,
        tolerance=allowed if np.isfinite(allowed) else None,
        stages=tuple(results),
    )


def _failure(stage: str, source: str, stats: ParityStats) -> str:
    if not np.isfinite(stats.max_difference):
        return f"{stage} returns logits that are not finite on {source}"
    min_agreement = max(stats.tolerance.agreement, stats.tolerance.total_agreement)
    return (
        f"{stage} differs from PyTorch on {stats.images} images of {source}: "
        f"agreement {stats.equal / stats.compared:.2%} (at least {min_agreement:.1%} required), "
        f"largest difference {stats.max_difference:.4g} (at most {stats.max_allowed:.4g} allowed)"
    )
