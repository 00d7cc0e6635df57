"""The best weights of a run so far, in files beside its checkpoints."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from csg_train.methods.base import Student
from csg_train.models.lora import merged_state
from csg_train.tasks import Measurement
from csg_train.training.run_folder import KEEP_CHECKPOINTS
from csg_train.training.run_result import BestMeasurement
from csg_train.training.tensor_files import read_tensors, write_tensors

WEIGHTS, PREDICTIONS, NOTE = "student.", "predictions", "best"


@dataclass
class BestWeights:
    """The weights of the best of a run's measurements on the same images; of equal ones the latest.

    The file is named after its step. The one before it is kept as well, for a run that goes on from the checkpoint
    before the last one.
    """

    folder: Path
    """The run's folder of checkpoints."""
    kind: str
    """Which images, in the file's name."""
    score: str
    """The field of an evaluation that decides."""
    found: BestMeasurement | None = None
    """The best measurement so far; None: there is none."""

    def resume(self, step: int) -> None:
        """Continue after `step` steps; files of measurements from then on are removed: they are made again.

        Raises:
            CsgError: the file of the best measurement so far is damaged.
        """
        for file in self._files():
            if _step(file) >= step:
                file.unlink()
        self.found = self.load()[0] if self._files() else None

    def offer(self, step: int, measurement: Measurement, student: Student) -> None:
        """Keep the student's weights if no measurement before was better."""
        if self.found and self._value(self.found) > getattr(measurement.evaluation, self.score):
            return
        self.found = BestMeasurement(step=step, evaluation=measurement.evaluation)
        tensors = {WEIGHTS + name: value for name, value in merged_state(student).items()}
        tensors[PREDICTIONS] = torch.from_numpy(measurement.predictions)
        file = self.folder / f"best-{self.kind}-{step:08d}.safetensors"
        write_tensors(file, tensors, {NOTE: self.found.model_dump_json()})
        for old in self._files()[:-KEEP_CHECKPOINTS]:
            old.unlink()

    def load(self) -> tuple[BestMeasurement, dict[str, Tensor], Tensor]:
        """The best measurement, the state dict of its student, and what that predicts for each image.

        Raises:
            CsgError: the file is damaged.
        """
        tensors, notes = read_tensors(self._files()[-1])
        predictions = tensors.pop(PREDICTIONS)
        state = {name.removeprefix(WEIGHTS): value for name, value in tensors.items()}
        return BestMeasurement.model_validate_json(notes[NOTE]), state, predictions

    def _value(self, best: BestMeasurement) -> float:
        return float(getattr(best.evaluation, self.score))

    def _files(self) -> list[Path]:
        return sorted(self.folder.glob(f"best-{self.kind}-*.safetensors"))


def _step(file: Path) -> int:
    return int(file.stem.rpartition("-")[2])
