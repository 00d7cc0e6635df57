"""The end of a training: which weights become the student, what they and others reach, and the files of the result."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import closing
from typing import Literal

import numpy as np
from torch import Tensor

from csg.console import log
from csg_train.methods.base import Student
from csg_train.models.batch_norm import measure_running_stats
from csg_train.training.averaging import WeightAverage
from csg_train.training.dense_average import DenseAverage
from csg_train.training.interpolation import ALPHAS, Interpolation, smallest_good
from csg_train.training.kept_weights import KeptWeights
from csg_train.training.measurements import Measurements, Scores, held_out_loss
from csg_train.training.run_folder import Run
from csg_train.training.run_result import BestMeasurement, Evaluation, RunResult, StudentChoice

MADE = ("average", "swad", "wise")
"""Rules of a choice whose student has weights that no step had."""


class Conclusion:
    """Concludes a run whose training has ended. The first process does it alone.

    Args:
        run: its folder.
        measurements: of the run.
        student: with the weights of the last step; it gets the chosen ones.
        inputs: makes batches of training images, uint8 (B, H, W, 3), on the device.

    Attributes:
        scores: what the chosen student reaches.
    """

    def __init__(self, run: Run, measurements: Measurements, student: Student, inputs: Callable[[], Generator[Tensor]]):
        self.run, self.measurements, self.student, self.inputs = run, measurements, student, inputs
        self.scores: Scores = {}
        self.predictions: dict[str, np.ndarray] = {}

    def make(self, result: RunResult, kept: KeptWeights | None, alpha: float | Literal["auto"] | None) -> RunResult:
        """Measure the last weights, choose the student, measure it, and write all but `result.json`.

        Args:
            result: of the training, without what was measured.
            kept: what was kept of the student's weights.
            alpha: the setting `optim.wise`.

        Returns:
            The whole result.

        Raises:
            Interrupted: a signal ended a measurement.
        """
        steps, the_last = result.steps, kept is None and "held_out" not in self.measurements.best
        last = self.measurements.take(self.student, steps, mirrored=the_last)
        choice = self._choose(steps, last, kept=kept, alpha=alpha)
        scores = last if the_last else self.measurements.scores(self.student, "student", mirrored=True)
        self.scores = scores
        if choice.rule in MADE:
            self.measurements.record(steps, scores, f"{choice.rule}/")
        changes = {
            "student": choice,
            "real": self._evaluation("student", scores),
            "held_out": scores["held_out"].measurement.evaluation if "held_out" in scores else None,
            "energy": next((scores[kind].energy for kind in ("real", "held_out") if kind in scores), None),
            "mirrored": scores["real"].measurement.mirrored if "real" in scores else None,
            "nuclear_norm": scores["real"].measurement.nuclear_norm if "real" in scores else None,
            "last": None if choice.rule not in MADE and choice.step == steps else self._evaluation("last", last),
            "best_on_real": self._best_on_real(),
        }
        self.run.write_student(self.student.state_dict())
        if self.predictions:
            self.run.write_predictions(self.predictions)
        return result.model_copy(update=changes)

    def _choose(
        self, steps: int, last: Scores, *, kept: KeptWeights | None, alpha: float | Literal["auto"] | None
    ) -> StudentChoice:
        """Give the student the weights that the recipe asks for."""
        if isinstance(kept, WeightAverage):
            self._become(kept.mean)
            log("student: the mean of the weights over the last steps")
            return StudentChoice(step=steps, rule="average")
        if isinstance(kept, DenseAverage):
            return self._choose_dense(steps, last, kept)
        if isinstance(kept, Interpolation):
            return self._choose_between(steps, kept, alpha)
        if "held_out" not in self.measurements.best:
            return StudentChoice(step=steps, rule="last")
        best, state, _ = self.measurements.best["held_out"].load()
        self.student.load_state_dict(state)
        log(f"student: the weights of step {best.step}, the best on the held-out synthetic images")
        return StudentChoice(step=best.step, rule="synthetic")

    def _choose_dense(self, steps: int, last: Scores, kept: DenseAverage) -> StudentChoice:
        """The mean of SWAD; the last weights if the loss on the held-out images fell to the end."""
        kept.observe(steps, held_out_loss(last))
        span = kept.span()
        if span is None:
            log("student: the last weights, since the loss on the held-out images fell to the end (optim.swad)")
            return StudentChoice(step=steps, rule="last")
        self._become(kept.mean())
        log(f"student: the mean of the weights of steps {span[0]} to {span[1]} (SWAD)")
        return StudentChoice(step=span[1], rule="swad", first_step=span[0])

    def _choose_between(self, steps: int, kept: Interpolation, alpha: float | Literal["auto"] | None) -> StudentChoice:
        """Weights between start and end; `auto` takes the smallest alpha within a standard error of the best."""
        end = {name: value.detach().clone() for name, value in self.student.state_dict().items()}
        if not isinstance(alpha, float):
            found = {}
            for tried in ALPHAS:
                self._become(kept.at(tried, end))
                found[tried] = self.measurements.held_out_score(self.student, f"alpha {tried:g}")
            alpha = smallest_good(found)
        self._become(kept.at(alpha, end))
        log(f"student: (1 - alpha) start + alpha end, alpha {alpha:g} (WiSE-FT)")
        return StudentChoice(step=steps, rule="wise", alpha=alpha)

    def _become(self, state: Mapping[str, Tensor]) -> None:
        """Give the student weights that no step had; running statistics of norms that train are measured anew."""
        self.student.load_state_dict(state)
        with self.measurements.stop.interruptible(), closing(self.inputs()) as inputs:
            measure_running_stats(self.student, inputs)

    def _evaluation(self, name: str, scores: Scores) -> Evaluation | None:
        """The scores on the real images, if there are any, whose predictions are kept under a name."""
        if "real" not in scores:
            return None
        found = scores["real"].measurement
        self.predictions[name] = found.predictions
        if found.true is not None:
            self.predictions["labels"] = found.true
        return found.evaluation

    def _best_on_real(self) -> BestMeasurement | None:
        """The best measurement on the real images; its weights are written, and its predictions are kept."""
        if "real" not in self.measurements.best:
            return None
        best, state, predictions = self.measurements.best["real"].load()
        self.run.write_best_on_real(state, best.step)
        self.predictions["best_on_real"] = predictions.numpy()
        log(f"best on the real images, an oracle and not the student: step {best.step}, {best.evaluation.headline}")
        return best
