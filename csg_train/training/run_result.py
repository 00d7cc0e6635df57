"""The result of a finished run (`result.json`)."""

from __future__ import annotations

from typing import Literal

from csg.provenance import ClassificationEvaluation, SegmentationEvaluation
from csg.records import Record
from csg_train.energy import Energy

Evaluation = ClassificationEvaluation | SegmentationEvaluation
StudentRule = Literal["last", "synthetic", "average", "swad", "wise"]
"""How the weights of a student are chosen."""


class StudentChoice(Record):
    """Which weights became the student."""

    step: int
    """The step whose weights they are; of averaged weights, the last one of the mean; of interpolated ones, the end."""
    rule: StudentRule
    """last: those of the last step; synthetic: those of the measurement that was best on held-out synthetic images;
    average: the mean over the last steps (`optim.average`); swad: the mean from `first_step` to `step` (`optim.swad`);
    wise: `alpha` of the way from the start of the fine-tuning to its end (`optim.wise`)."""
    first_step: int | None = None
    """Of swad, the first step whose weights are in the mean."""
    alpha: float | None = None
    """Of wise, the share of the end."""


class BestMeasurement(Record):
    """The best of all measurements of a run on the same images; of equal ones the latest."""

    step: int
    """Steps made before it."""
    evaluation: Evaluation
    """The scores."""


class RunResult(Record):
    """The result of a finished run."""

    version: Literal[1, 2] = 2
    """Version of the format; results of version 1 have none of the fields from `mirrored` on."""
    run: str
    """The run folder."""
    steps: int
    """Optimiser steps made."""
    images_per_s: float
    """Training throughput, over all processes, since the run was started or resumed."""
    seconds_per_step: float
    """Mean duration of a step, since the run was started or resumed."""
    waiting_for_data: float | None = None
    """Share of the training time spent waiting for batches, 0 to 1, since the run was started or resumed, the mean over
    the processes; None without a step, and in runs of older versions."""
    peak_memory_mib: int
    """Peak memory of the GPU, or of the process on a CPU."""
    unreadable: int
    """Training images that could not be read, and were replaced by the next ones, counted each time."""
    real: Evaluation | None = None
    """Scores of the student on the real images; None if the recipe has none."""
    held_out: Evaluation | None = None
    """Scores of the student on the held-out synthetic images; None if the recipe holds none out."""
    energy: Energy | None = None
    """Hyperspherical energy of the student's embeddings of the real images, without any of the held-out ones
    (docs/method.md section 9)."""
    mirrored: Evaluation | None = None
    """Scores of the student on the real images, from the mean of the probabilities of image and mirror image."""
    nuclear_norm: float | None = None
    """The normalised nuclear norm of the student's probabilities for the real images, 0 to 1, for which no label is
    used: it ranks models, and is no accuracy (`csg.label_free`). None without real images, and in older runs."""
    student: StudentChoice | None = None
    """Which weights the student is."""
    last: Evaluation | None = None
    """Scores of the last step's weights on the real images, if the student is not those."""
    best_on_real: BestMeasurement | None = None
    """The measurement that is best on the real images: an oracle, chosen with the labels of the test. Its weights are
    in best-on-real.safetensors. None without `evaluate_every`."""

    @property
    def evaluation(self) -> Evaluation | None:
        """The scores on the real images, without any on the held-out ones."""
        return self.real or self.held_out
