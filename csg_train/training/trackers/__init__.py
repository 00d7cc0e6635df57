"""Where the figures of a run go besides `metrics.jsonl`: TensorBoard always, MLflow, Weights & Biases and Trackio when
a user names them.

TRACKERS is the list of them. A tracker in another package joins it through the entry-point group `csg.trackers`, with a
class or function that takes a `TrackedRun` (protocol.py) and returns a `Tracker`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from importlib.metadata import EntryPoint, entry_points
from typing import TYPE_CHECKING

from csg.did_you_mean import use_one_of
from csg.errors import UsageError
from csg.extras import install_command

if TYPE_CHECKING:
    from csg_train.training.trackers.protocol import TrackedRun, Tracker

GROUP = "csg.trackers"
TENSORBOARD = "tensorboard"
OWN: dict[str, str] = {
    TENSORBOARD: "csg_train.training.trackers.tensorboard:TensorBoard",
    "mlflow": "csg_train.training.trackers.mlflow:MLflow",
    "wandb": "csg_train.training.trackers.wandb:WeightsAndBiases",
    "trackio": "csg_train.training.trackers.trackio:Trackio",
}
TRACKERS: dict[str, str] = {entry.name: entry.value for entry in entry_points(group=GROUP)} | OWN
"""What opens each tracker, as `module:class`."""


def check_trackers(names: Iterable[str]) -> None:
    """Raise UsageError if one of the trackers does not exist, or is not installed."""
    for name in names:
        load_tracker(name)


def load_tracker(name: str) -> Callable[[TrackedRun], Tracker]:
    """What opens a tracker.

    Raises:
        UsageError: there is no such tracker, or its package is not installed.
    """
    if name not in TRACKERS:
        raise UsageError(f"there is no tracker {name!r}", use_one_of(name, TRACKERS))
    try:
        opener: Callable[[TrackedRun], Tracker] = EntryPoint(name, TRACKERS[name], GROUP).load()
    except ImportError as error:
        hint = install_command(name) if name in OWN else "repair or uninstall that package"
        raise UsageError(f"--tracker {name} can't be used: {error}", hint) from None
    return opener
