"""Deployments into a model repository: one at a time, and the watchdog leaves the model that is deployed alone.

Triton 2.51 never ends a load whose files are removed while it runs, nor any later call for that model: a model that is
refused and removed by its deployment must not be loaded again by the watchdog meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from csg.locks import is_locked, lock
from csg_serve.triton.config import encoded_name

LOCK = ".csg-deploy.lock"
"""In the repository: locked by a deployment; its text is the name of the model."""


@contextmanager
def deploying(repository: Path, model: str) -> Iterator[None]:
    """Let other deployments into the repository wait, and `is_being_deployed` be true for a model.

    Raises:
        OSError: the repository can't be written.
    """
    with lock(repository / LOCK, wait=""):
        (repository / LOCK).write_text(model)
        yield


def is_being_deployed(repository: Path, model: str) -> bool:
    """Whether a deployment changes a model now; `model` may be its `<name>_encoded`."""
    try:
        changed = (repository / LOCK).read_text(errors="replace")
    except OSError:
        return False
    return model in (changed, encoded_name(changed)) and is_locked(repository / LOCK)
