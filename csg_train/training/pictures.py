"""The pictures of a run in its folder and in its metrics, made when it ends."""

from __future__ import annotations

import io

from PIL import Image

from csg.console import log
from csg.errors import one_line
from csg.files import atomic_write
from csg_train.methods.base import Method
from csg_train.recipe import Recipe
from csg_train.tasks import Images
from csg_train.training.measurements import Scores
from csg_train.training.measuring import Kind
from csg_train.training.metrics_log import MetricsLine
from csg_train.training.run_data import RunImages
from csg_train.training.run_folder import Run


def keep_pictures(
    run: Run, recipe: Recipe, method: Method, *, images: RunImages, scores: Scores
) -> dict[str, Image.Image]:
    """Draw the pictures of a run, and write them to `pictures/`. Whatever fails is a line of the log.

    Args:
        run: its folder.
        recipe: its settings.
        method: with the student that was chosen.
        images: of the run.
        scores: of that student.

    Returns:
        Those that were written, RGB, by name.
    """
    written: dict[str, Image.Image] = {}
    try:
        from csg_train.pictures.run_pictures import Ended, run_pictures

        shown: dict[Kind, Images | None] = {"real": images.real, "held_out": images.held_out}
        measured = [(some, scores[kind].measurement) for kind, some in shown.items() if some and kind in scores]
        ended = Ended(
            recipe=recipe,
            points=_points(run),
            images=images.training,
            method=method,
            measured=measured[0] if measured else None,
        )
        for old in run.pictures.glob("*.png"):
            old.unlink()
        for name, content in run_pictures(ended).items():
            atomic_write(run.pictures / f"{name}.png", content)
            written[name] = Image.open(io.BytesIO(content)).convert("RGB")
    except Exception as error:
        log(f"warning: not all pictures of the run are there: {one_line(error)}")
    return written


def _points(run: Run) -> list[tuple[int, dict[str, float | None]]]:
    lines = map(MetricsLine.from_json, run.metrics.read_text(errors="replace").splitlines())
    return [(line.step, line.figures) for line in lines if line]
