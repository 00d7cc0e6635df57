"""TensorBoard: event files in the run folder."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from PIL import Image
from torch.utils.tensorboard import SummaryWriter
from torch.utils.tensorboard import summary as summaries

from csg_train.training.trackers.protocol import TrackedRun


class TensorBoard:
    """Writes event files; those of a resumed run hide what a killed one wrote after its last checkpoint."""

    id = ""

    def __init__(self, run: TrackedRun):
        self.run = run
        self.board: SummaryWriter | None = None

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        for name, value in values.items():
            self._board(step).add_scalar(name, value, step)

    def images(self, step: int, images: Mapping[str, Image.Image]) -> None:
        for name, image in images.items():
            self._board(step).add_image(name, np.asarray(image), step, dataformats="HWC")

    def results(self, step: int, values: Mapping[str, float]) -> None:
        self.figures(step, values)

    def close(self, finished: bool) -> None:
        if self.board:
            self.board.close()

    def _board(self, step: int) -> SummaryWriter:
        """The writer, opened at the first thing to write: events of this step and later ones are void from then on."""
        if self.board is None:
            self.board = SummaryWriter(str(self.run.folder), purge_step=step)
            self._write_settings(self.board)
        return self.board

    def _write_settings(self, board: Any) -> None:  # torch has no types for these
        hparams: Any = summaries.hparams
        known, started, _ = hparams(dict(self.run.settings), dict.fromkeys(self.run.results, 0.0))
        for summary in (known, started):
            board.file_writer.add_summary(summary)
