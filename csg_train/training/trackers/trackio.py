"""Trackio: a folder, a server of one's own or a Hugging Face Space, as TRACKIO_SERVER_URL and TRACKIO_SPACE_ID say."""

from __future__ import annotations

import os
import secrets
import sys
from collections.abc import Mapping

import trackio
from PIL import Image

from csg_train.training.trackers.protocol import TrackedRun


def _print_nothing(*_: object) -> None:
    pass


for name, module in list(sys.modules.items()):
    if name.partition(".")[0] == "trackio":
        vars(module)["print"] = _print_nothing  # it prints on standard output, which is for results


class Trackio:
    """Writes into a project: that of TRACKIO_PROJECT, or `csg`."""

    def __init__(self, run: TrackedRun):
        self.id = run.id or f"{run.folder.name}-{secrets.token_hex(3)}"
        self.run = trackio.init(
            project=os.environ.get("TRACKIO_PROJECT", "csg"),
            name=self.id,
            resume="allow",
            config=dict(run.settings),
            embed=False,
            auto_log_gpu=False,
            auto_log_cpu=False,
        )

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def images(self, step: int, images: Mapping[str, Image.Image]) -> None:
        self.run.log({name: trackio.Image(image) for name, image in images.items()}, step=step)

    def results(self, step: int, values: Mapping[str, float]) -> None:
        self.run.log(dict(values), step=step)

    def close(self, finished: bool) -> None:
        self.run.finish()
