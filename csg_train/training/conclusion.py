"""The end of a training: which weights become the student, what they and others reach, and the files of the result."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from torch import Tensor

from csg.console import log
from csg_train.methods.base import Student
from csg_train.training.measurements import Measurements, Scores
from csg_train.training.run_folder import Run
from csg_train.training.run_result import BestMeasurement, Evaluation, RunResult, StudentChoice


class Conclusion:
    """Concludes a run whose training has ended. The first process does it alone.

    Args:
        run: its folder.
        measurements: of the run.
        student: with the weights of the last step; it gets the chosen ones.

    Attributes:
        scores: what the chosen student reaches.
    """

    def __init__(self, run: Run, measurements: Measurements, student: Student):
        self.run, self.measurements, self.student = run, measurements, student
        self.scores: Scores = {}
        self.predictions: dict[str, np.ndarray] = {}

    def make(self, result: RunResult, average: Mapping[str, Tensor]) -> RunResult:
        """Measure the last weights, choose the student, measure it, and write all but `result.json`.

        Args:
            result: of the training, without what was measured.
            average: the mean of the weights over the last steps, if that is to be the student; otherwise empty.

        Returns:
            The whole result.

        Raises:
            Interrupted: a signal ended a measurement.
        """
        steps, the_last = result.steps, not average and "held_out" not in self.measurements.best
        last = self.measurements.take(self.student, steps, mirrored=the_last)
        choice = self._choose(steps, average)
        scores = last if the_last else self.measurements.scores(self.student, "student", mirrored=True)
        self.scores = scores
        if average:
            self.measurements.record(steps, scores, "average/")
        changes = {
            "student": choice,
            "real": self._evaluation("student", scores),
            "held_out": scores["held_out"].measurement.evaluation if "held_out" in scores else None,
            "energy": next((scores[kind].energy for kind in ("real", "held_out") if kind in scores), None),
            "mirrored": scores["real"].measurement.mirrored if "real" in scores else None,
            "nuclear_norm": scores["real"].measurement.nuclear_norm if "real" in scores else None,
            "last": None if choice.rule != "average" and choice.step == steps else self._evaluation("last", last),
            "best_on_real": self._best_on_real(),
        }
        self.run.write_student(self.student.state_dict())
        if self.predictions:
            self.run.write_predictions(self.predictions)
        return result.model_copy(update=changes)

    def _choose(self, steps: int, average: Mapping[str, Tensor]) -> StudentChoice:
        """Give the student the weights that the recipe asks for."""
        if average:
            self.student.load_state_dict(average)
            log("student: the mean of the weights over the last steps")
            return StudentChoice(step=steps, rule="average")
        if "held_out" not in self.measurements.best:
            return StudentChoice(step=steps, rule="last")
        best, state, _ = self.measurements.best["held_out"].load()
        self.student.load_state_dict(state)
        log(f"student: the weights of step {best.step}, the best on the held-out synthetic images")
        return StudentChoice(step=best.step, rule="synthetic")

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
