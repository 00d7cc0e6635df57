"""All trackers of a run, in the first process; the run folder keeps under which names they know the run."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal

from PIL import Image

from csg.console import log
from csg.errors import CsgError
from csg.records import Record, read_record
from csg_train.distributed import broadcast_object, rank
from csg_train.recipe import Recipe
from csg_train.recipe.settings import by_dotted_name
from csg_train.tasks import TASKS
from csg_train.training.run_files import TRACKED
from csg_train.training.run_folder import Run
from csg_train.training.run_result import RunResult
from csg_train.training.trackers import TENSORBOARD, load_tracker
from csg_train.training.trackers.background import BackgroundTracker, Call
from csg_train.training.trackers.protocol import Setting, TrackedRun


class TrackedRuns(Record):
    """Which trackers follow a run (`trackers.json`)."""

    version: Literal[1] = 1
    """Version of the format."""
    ids: dict[str, str]
    """Each tracker's own name of the run."""


class Trackers:
    """Tells all trackers of a run what it measures.

    Args:
        run: its folder.
        recipe: its settings.
    """

    def __init__(self, run: Run, recipe: Recipe):
        self.run, self.recipe = run, recipe
        self.open_ones: list[BackgroundTracker] = []
        self.ids: dict[str, str] = {}

    def open(self, names: Sequence[str]) -> None:
        """Open those of an earlier part of the run, and those named now.

        Raises:
            UsageError, InputError: one that is named now can't be opened; of an earlier one this is said only.
        """
        self.ids = self._earlier()
        for name in dict.fromkeys((TENSORBOARD, *names, *self.ids)):
            try:
                self._open(name)
            except CsgError as error:
                if name in names or name == TENSORBOARD:
                    raise
                log(f"warning: {error.message}; the training goes on without it")

    def keep(self) -> None:
        """Note the open ones in the run folder, for when it is resumed."""
        if self.ids:
            self.run.write_record(TRACKED, TrackedRuns(ids=self.ids))

    def figures(self, step: int, values: Mapping[str, float]) -> None:
        """Figures after `step` steps."""
        self._all(lambda tracker: tracker.figures(step, values))

    def images(self, step: int, images: Mapping[str, Image.Image]) -> None:
        """RGB images after `step` steps, by name: letters, digits, '.', '_' and '-'."""
        self._all(lambda tracker: tracker.images(step, images))

    def results(self, result: RunResult) -> None:
        """What the finished run has reached."""
        values = {f"result/{name}": float(value) for name, value in self._results(result).items()}
        self._all(lambda tracker: tracker.results(result.steps, values))

    def close(self, finished: bool) -> None:
        """The training is over, or it was stopped and may be continued."""
        for tracker in self.open_ones:
            tracker.close(finished)

    def _open(self, name: str) -> None:
        tracked = TrackedRun(
            folder=self.run.path,
            id=self.ids.get(name),
            settings=flat(self.recipe.model_dump(mode="json") | {"methods": self._method()}),
            results=tuple(f"result/{score}" for score in TASKS[self.recipe.task].scores),
        )
        tracker = BackgroundTracker(name, partial(load_tracker(name), tracked))
        found = tracker.open()
        self.open_ones.append(tracker)
        if name != TENSORBOARD:
            self.ids[name] = found
            log(f"tracked by {name}: run {found}")

    def _all(self, call: Call) -> None:
        for tracker in self.open_ones:
            tracker.send(call)

    def _earlier(self) -> dict[str, str]:
        file = self.run.path / TRACKED
        return read_record(file, TrackedRuns, "remove it, and name the trackers again").ids if file.exists() else {}

    def _method(self) -> dict[str, Any]:
        return {name: settings for name, settings in self.recipe.methods.items() if name == self.recipe.method}

    def _results(self, result: RunResult) -> dict[str, float]:
        found = {name: getattr(result, name) for name in ("images_per_s", "seconds_per_step", "peak_memory_mib")}
        if result.evaluation:
            found |= {name: getattr(result.evaluation, name) for name in TASKS[self.recipe.task].scores}
        if result.energy:
            found |= {name: getattr(result.energy, name) for name in ("E_0", "E_1", "E_2")}
        return found


@contextmanager
def tracking(run: Run, recipe: Recipe, names: Sequence[str]) -> Iterator[Trackers]:
    """The trackers of a training: open in the block in the first process, none in the others.

    Args:
        run: its folder.
        recipe: its settings.
        names: the trackers besides TensorBoard and those of an earlier part of the run.

    Raises:
        UsageError, InputError: as `Trackers.open`.
    """
    trackers = Trackers(run, recipe)
    finished = False
    try:
        broadcast_object(trackers.open, names)
        yield trackers
        finished = True
    finally:
        if rank() == 0:
            trackers.close(finished)


def flat(tree: Mapping[str, Any]) -> dict[str, Setting]:
    """Nested settings by dotted name; those that are unset are left out, lists are texts.

    Example:
        >>> flat({"seed": 0, "optim": {"batch": 32, "clip": None}, "stages": ["a", "b"]})
        {'seed': 0, 'optim.batch': 32, 'stages': 'a, b'}
    """
    return {
        name: ", ".join(map(str, value)) if isinstance(value, list | tuple) else value
        for name, value in by_dotted_name(tree)
        if value is not None
    }
