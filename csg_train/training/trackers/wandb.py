"""Weights & Biases: its service, or a folder with WANDB_MODE=offline."""

from __future__ import annotations

import os
from collections.abc import Mapping

import wandb
from PIL import Image

from csg_train.training.trackers.protocol import TrackedRun

PATIENCE_S = 15.0
"""How long the start and the end of a run may take."""


class WeightsAndBiases:
    """Writes into a project: that of WANDB_PROJECT, or `csg`. Prints and uploads nothing else."""

    def __init__(self, run: TrackedRun):
        quiet = wandb.Settings(
            console="off", silent=True, save_code=False, init_timeout=PATIENCE_S, finish_timeout=PATIENCE_S
        )
        self.run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "csg"),
            name=run.folder.name,
            id=run.id,
            resume="allow",
            dir=run.folder,
            config=dict(run.settings),
            allow_val_change=True,
            settings=quiet,
        )
        self.id = self.run.id
        self.run.define_metric("step", hidden=True)
        self.run.define_metric("*", step_metric="step")  # its own count of steps can't go back, as a resumed run does

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log({**values, "step": step})

    def images(self, step: int, images: Mapping[str, Image.Image]) -> None:
        self.run.log({**{name: wandb.Image(image) for name, image in images.items()}, "step": step})

    def results(self, step: int, values: Mapping[str, float]) -> None:
        self.run.summary.update(dict(values))

    def close(self, finished: bool) -> None:
        self.run.finish(exit_code=0 if finished else 1)
