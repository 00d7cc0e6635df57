"""Versions of a model in a repository: add one, make it live, or restore what was served before.

Every step is atomic: a version's folder is written under a temporary name and renamed, and replacing `config.pbtxt`
makes the version that it names the served one.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from csg.bundle import LABELS
from csg.errors import CsgError, InputError
from csg.files import atomic_directory, atomic_write
from csg_serve.server.control import STAYS, unload_model, wait_until_live
from csg_serve.server.deployments import deploying
from csg_serve.server.state import ServerState
from csg_serve.server.verification import log_verified, verify_running
from csg_serve.triton.config import CARD_PARAMETER, CONFIG, encoded_name, read_config, served_version
from csg_serve.triton.failures import clear_failed, mark_failed, why_failed
from csg_serve.verify.verify import Effort, check


@dataclass(frozen=True)
class SwitchStep:
    """One step of a switch to another version."""

    model_dir: Path
    """Folder of the model that the step changes."""

    make: Callable[[], None]
    """Makes the version the one to serve, on disk."""


@contextmanager
def locked_model(repository: Path, name: str) -> Iterator[Path]:
    """Yield a model's folder while no other deployment changes the repository.

    Raises:
        InputError: the repository can't be written.
    """
    model_dir = repository / name
    try:
        with deploying(repository, name):
            _clean_stale(model_dir)
            yield model_dir
    except OSError as error:
        message = f"can't write {error.filename or model_dir}: {_os_reason(error)}"
        raise InputError(message, "nothing was deployed") from None


def versions_of(model_dir: Path) -> list[int]:
    """Return the versions of a model; empty if there is no such model.

    Raises:
        InputError: csg did not write the model.
    """
    if not model_dir.exists():
        return []
    config = read_config(model_dir / CONFIG)
    if config is None or CARD_PARAMETER not in config.parameters:
        raise InputError(f"{model_dir} was not written by csg", "deploy under another name with --name")
    return [int(entry.name) for entry in model_dir.iterdir() if re.fullmatch(r"[1-9][0-9]*", entry.name)]


def add_version(model_dir: Path, version: int, fill: Callable[[Path], None], extra_files: Mapping[str, bytes]) -> None:
    """Add a version to a model and make it the one to serve; a new model's folder appears with its version.

    Args:
        model_dir: folder of the model.
        version: number of the version.
        fill: writes the version's files into a folder.
        extra_files: as for `point_at`.
    """
    if model_dir.exists():
        with atomic_directory(model_dir / str(version)) as folder:
            fill(folder)
        point_at(model_dir, extra_files)
    else:
        with atomic_directory(model_dir) as folder:
            (folder / str(version)).mkdir()
            fill(folder / str(version))
            for name, content in extra_files.items():
                (folder / name).write_bytes(content)


def point_at(model_dir: Path, extra_files: Mapping[str, bytes]) -> None:
    """Replace the files next to a model's version folders, by name, in this order.

    The last one is `config.pbtxt`, which names the version to serve.
    """
    for name, content in extra_files.items():
        atomic_write(model_dir / name, content)


def prune(model_dir: Path, keep: int | None) -> None:
    """Remove all but the newest `keep` versions of a model that did not fail; never the served one. None keeps all."""
    if keep is None or not model_dir.exists():
        return
    served = served_version(model_dir)
    newest_first = sorted(versions_of(model_dir), reverse=True)
    kept = [version for version in newest_first if why_failed(model_dir, version) is None][:keep]
    for version in newest_first:
        if version not in (*kept, served):
            shutil.rmtree(model_dir / str(version))


def go_live(model_dir: Path, version: int, steps: list[SwitchStep], *, encoded: bool) -> str | None:
    """Make one step after the other, each after the running server has loaded the step before; then verify the answers.

    If a version does not load or answers wrongly, or a file can't be written, what was served before is restored, and
    the version is marked as failed.

    Args:
        model_dir: folder of the tensor model.
        version: the version to serve.
        steps: the steps.
        encoded: whether the version has a `<name>_encoded`, which is verified too.

    Returns:
        The gRPC address of the running server; None if none runs.

    Raises:
        ServerError: the running server can't load the version, or gives no answer.
        VerificationError: its answers differ from the golden ones.
        OSError: a file can't be written.
    """
    before: list[_Before] = []
    server = None
    try:
        for step in steps:
            before.append(_Before(step.model_dir))
            step.make()
            server = wait_until_live(step.model_dir.parent, step.model_dir.name, version)
            before[-1].replaced = server is not None
        if server:
            _verify(model_dir, server, encoded)
    except (CsgError, OSError) as error:
        if isinstance(error, CsgError):
            mark_failed(model_dir, version, error.message)
        for model in reversed(before):
            model.restore()
        raise
    if server is None:
        return None
    clear_failed(model_dir, version)
    return server.grpc


def _verify(model_dir: Path, server: ServerState, encoded: bool) -> None:
    found = verify_running(model_dir.parent, server, model_dir.name, Effort(files=encoded))
    check(found, STAYS)
    log_verified(found)


class _Before:
    """What was served of a model before a switch."""

    def __init__(self, model_dir: Path):
        files = (model_dir / LABELS, model_dir / CONFIG)
        self.model_dir, self.contents = model_dir, {file: file.read_bytes() for file in files if file.exists()}
        self.replaced = False

    def restore(self) -> None:
        """Restore it on disk: Triton would try again and again to load a version that fails; and on the server."""
        repository, name = self.model_dir.parent, self.model_dir.name
        for file, content in self.contents.items():
            if file.read_bytes() != content:
                atomic_write(file, content)
        if not self.contents and self.model_dir.exists():
            shutil.rmtree(self.model_dir)
        if self.replaced and self.contents:
            with suppress(CsgError):
                wait_until_live(repository, name, served_version(self.model_dir))
        elif self.replaced:
            unload_model(repository, name)


def _clean_stale(model_dir: Path) -> None:
    """Remove temporary folders of a killed deployment: Triton takes any folder, hidden or not, for a model."""
    for folder in (model_dir, model_dir.with_name(encoded_name(model_dir.name))):
        for stale in (*folder.parent.glob(f".{folder.name}.*/"), *folder.glob(".*.*/")):
            shutil.rmtree(stale)


def _os_reason(error: OSError) -> str:
    """Return why a file can't be written. shutil.copytree raises a list of "[Errno N] reason: file"."""
    if isinstance(error, shutil.Error):
        return str(error.args[0][0][2]).partition("] ")[2].partition(": ")[0]
    return error.strerror or str(error)
