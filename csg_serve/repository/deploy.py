"""From a bundle to the next version of a model in a Triton model repository.

<repository>/<name>/config.pbtxt    names the version to serve, and carries its card
<repository>/<name>/labels.txt
<repository>/<name>/<version>/      model.onnx, and model.py for the Python backend
<repository>/<name>_encoded/        the model beside it that takes image files: csg_serve/repository/encoded_model.py
"""

from __future__ import annotations

import fcntl
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

from csg.bundle import LABELS, Bundle, newest_bundle, read_bundle
from csg.console import log, print_json
from csg.errors import InputError, ServerError, UsageError
from csg.files import atomic_write, validate_name
from csg_serve.python_backend import TENSOR_MODEL, write_scripts
from csg_serve.repository.encoded_model import PREPARING, encoded_home, fill_preparing, remove_encoded, write_encoded
from csg_serve.repository.versions import add_version, point_at
from csg_serve.server.control import wait_until_live
from csg_serve.triton.config import (
    CARD_PARAMETER,
    CONFIG,
    card_of,
    config_text,
    encoded_name,
    model_config,
    read_config,
    served_version,
)
from csg_serve.triton.deploy_options import DEFAULTS, DeployOptions, on_this_machine
from csg_serve.triton.executable import best_backend

BUNDLES = Path("bundles")


@dataclass(frozen=True)
class Deployed:
    """A version of a model in a repository; `live` is the gRPC address of the running server that has it, or None;
    `encoded` the model beside it that takes image files, or None.
    """

    model: str
    version: int
    repository: str
    backend: str
    encoded: str | None
    live: str | None


@dataclass(frozen=True)
class Change:
    """What makes a version of the model in the folder `home` the one to serve."""

    home: Path
    make: Callable[[], None]


def deploy(
    bundle: Bundle,
    repository: Path,
    name: str | None = None,
    backend: str = "python",
    version: int | None = None,
    options: DeployOptions = DEFAULTS,
) -> Deployed:
    """Add a bundle to a model repository as the model's next version, and to the model that takes image files for it.

    The version's folder is written aside and renamed; replacing `config.pbtxt` then makes it the served one. Where
    `csg serve` runs on the repository, wait until the version is live, and take it back if it does not load.

    Args:
        name: the model's name there; the card's by default.
        backend: "python", "onnxruntime" or "tensorrt".
        version: its number; one more than the highest there by default.

    Raises:
        InputError: the backend needs a plan that the bundle has not, the repository can't be written, has a model of
            that name from elsewhere, or has that version.
        ServerError: the running server can't load it.
        UsageError: the name is no plain name, or the options do not fit the bundle or the backend.
    """
    card = bundle.card
    if backend == "tensorrt" and (card.engine is None or card.engine.library != "tensorrt"):
        raise InputError(f"{bundle.path} holds no TensorRT plan", "make one with `csg export --format tensorrt`")
    options.check(card, backend)
    options = on_this_machine(options, card, backend)
    name = validate_name(name or card.name, "model name")
    validate_name(encoded_name(name), "model name")
    with _changing(repository, name) as home:
        taken = _versions(home)
        number = version or max(taken, default=0) + 1
        if number in taken:
            raise InputError(f"{name} has a version {number} already", "take another, or leave --version out")
        with tempfile.TemporaryDirectory() as scratch:
            preparing = Path(scratch, PREPARING) if options.encoded else None
            changes = [Change(home, lambda: _write(home, number, bundle, backend, options, preparing))]
            if preparing:
                fill_preparing(preparing, name, number, card, options)
                now = served_version(home) if taken else None
                switch = Change(encoded_home(home), lambda: write_encoded(home, number, preparing, now))
                changes.insert(0 if taken else 1, switch)
            live = _go_live(number, changes)
        if not preparing:
            remove_encoded(home)
    return Deployed(name, number, str(repository), backend, encoded_name(name) if options.encoded else None, live)


def roll_back(repository: Path, name: str | None, version: int | None) -> Deployed:
    """Serve an earlier version again: the highest below the one that is served now, or the named one.

    Raises:
        InputError: there is no such model or version.
        UsageError: there are several models and none was named.
        ServerError: the running server can't load it.
    """
    name = validate_name(name or _only_model(repository), "model name")
    with _changing(repository, name) as home:
        taken = _versions(home)
        if not taken:
            raise InputError(f"no model {name} in {repository}/", "see `csg models`, or the folder")
        now = served_version(home)
        earlier = [one for one in taken if one < now] if version is None else [one for one in taken if one == version]
        if not earlier:
            wanted = f"version {version}" if version else f"version before {now}"
            raise InputError(f"{name} has no {wanted}", f"it has {', '.join(map(str, sorted(taken)))}")
        back = max(earlier)
        config = read_config(home / str(back) / CONFIG)
        if config is None:
            raise InputError(f"{home / str(back)} has no {CONFIG} of its own", "deploy its bundle again")
        labels = "".join(f"{label}\n" for label in card_of(config, str(home)).classes)
        beside = {LABELS: labels.encode(), CONFIG: config_text(config).encode()}
        changes = [Change(home, lambda: point_at(home, beside))]
        preparing = home / str(back) / PREPARING
        encoded = encoded_name(name) if preparing.is_dir() else None
        if encoded and back != now:
            changes.insert(0, Change(encoded_home(home), lambda: write_encoded(home, back, preparing, now)))
        live = _go_live(back, changes)
        if not encoded:
            remove_encoded(home)
    return Deployed(name, back, str(repository), config.backend, encoded, live)


@contextmanager
def _changing(repository: Path, name: str) -> Iterator[Path]:
    """The model's folder, with no other deployment at work on it."""
    home = repository / name
    try:
        with _alone(repository):
            _remove_remains(home)
            yield home
    except OSError as error:
        raise InputError(f"can't write {error.filename or home}: {_reason(error)}", "nothing was deployed") from None


def _reason(error: OSError) -> str:
    """Why something can't be written; shutil.copytree gives a list of "[Errno N] why: file"."""
    if isinstance(error, shutil.Error):
        return str(error.args[0][0][2]).partition("] ")[2].partition(": ")[0]
    return error.strerror or str(error)


def _go_live(version: int, changes: list[Change]) -> str | None:
    """Make one change after the other, each when the running server has loaded what the former made; if something does
    not load, or can't be written, serve what was served before.
    """
    before: dict[Path, dict[Path, bytes]] = {}
    try:
        for change in changes:
            home = change.home
            before[home] = {file: file.read_bytes() for file in (home / LABELS, home / CONFIG) if file.exists()}
            change.make()
            live = wait_until_live(home.parent, home.name, version)
    except (ServerError, OSError):
        for home, files in reversed(before.items()):
            _take_back(home, files)
        raise
    return live


def _only_model(repository: Path) -> str:
    """The one model of ours in a repository."""
    configs = {file.parent.name: read_config(file) for file in sorted(repository.glob(f"[!.]*/{CONFIG}"))}
    ours = [name for name, config in configs.items() if config and CARD_PARAMETER in config.parameters]
    if len(ours) != 1:
        what = f"{repository}/ has {'several models: ' + ', '.join(ours) if ours else 'no model'}"
        raise UsageError(what, "name one with --name") if ours else InputError(what, "`csg deploy` puts one there")
    return ours[0]


def _write(
    home: Path, version: int, bundle: Bundle, backend: str, options: DeployOptions, preparing: Path | None
) -> None:
    """Add a version to the model folder `home`, or make the folder with it, in one move."""
    config = config_text(model_config(bundle.card, home.name, version, backend, options)).encode()
    if home.exists():
        _forget(home, options.keep)
    beside = {LABELS: bundle.labels.read_bytes(), CONFIG: config}
    add_version(home, version, lambda folder: _fill(folder, bundle, backend, config, preparing), beside)


def _fill(folder: Path, bundle: Bundle, backend: str, config: bytes, preparing: Path | None) -> None:
    """A version's files, its configuration among them and what its images are prepared with, for a way back to it."""
    for file in [bundle.plan] if bundle.plan and backend == "tensorrt" else bundle.graph:
        shutil.copyfile(file, folder / file.name)
    (folder / CONFIG).write_bytes(config)
    if backend == "python":
        write_scripts(TENSOR_MODEL, folder)
    if preparing:
        shutil.copytree(preparing, folder / PREPARING)


def _forget(home: Path, keep: int | None) -> None:
    """Remove the versions before the `keep` newest, but not the served one."""
    served = served_version(home)
    for version in sorted(_versions(home), reverse=True)[keep:] if keep is not None else []:
        if version != served:
            shutil.rmtree(home / str(version))


def _take_back(home: Path, before: dict[Path, bytes]) -> None:
    """Serve what was served before: Triton would try a version that does not load again and again."""
    for file, content in before.items():
        if file.read_bytes() != content:
            atomic_write(file, content)
    if not before and home.exists():
        shutil.rmtree(home)


def _versions(home: Path) -> list[int]:
    """The versions of a model that csg wrote; none where there is no such model."""
    if not home.exists():
        return []
    config = read_config(home / CONFIG)
    if config is None or CARD_PARAMETER not in config.parameters:
        raise InputError(f"{home} was not written by csg", "deploy under another name with --name")
    return [int(entry.name) for entry in home.iterdir() if re.fullmatch(r"[1-9][0-9]*", entry.name)]


def _remove_remains(home: Path) -> None:
    """Remove what a killed deployment left aside: Triton takes any folder, hidden or not, for a model."""
    for folder in (home, home.with_name(encoded_name(home.name))):
        for remains in (*folder.parent.glob(f".{folder.name}.*/"), *folder.glob(".*.*/")):
            shutil.rmtree(remains)


@contextmanager
def _alone(repository: Path) -> Iterator[None]:
    """Hold back other deployments into the same repository."""
    repository.mkdir(parents=True, exist_ok=True)
    with (repository / ".csg-deploy.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def deploy_command(
    bundle: Path | None,
    repository: Path,
    name: str | None,
    backend: str,
    version: int | None,
    options: DeployOptions,
    as_json: bool,
) -> None:
    """`csg deploy`: say what was taken by default, deploy, and say where it is."""
    chosen = read_bundle(bundle or newest_bundle(BUNDLES))
    kind = best_backend(chosen.card) if backend == "auto" else backend
    newest, auto = " (newest)" if bundle is None else "", " (auto)" if backend == "auto" else ""
    log(f"deploying {chosen.path}{newest} to {repository}/ for the {kind} backend{auto}")
    deployed = deploy(chosen, repository, name, kind, version, options)
    _announce(deployed, "is in", as_json)
    if deployed.live and (options.response_cache or options.rate_limit):
        log("if the server was started before a model asked for a response cache or rate limits, start it again")


def roll_back_command(repository: Path, name: str | None, version: int | None, as_json: bool) -> None:
    """`csg deploy --rollback`: serve an earlier version again, and say which."""
    _announce(roll_back(repository, name, version), "is served again from", as_json)


def _announce(deployed: Deployed, where: str, as_json: bool) -> None:
    state = f"live at {deployed.live}" if deployed.live else "serve it with `csg serve`"
    log(f"{deployed.model} version {deployed.version} {where} {deployed.repository}/; {state}")
    if deployed.encoded:
        log(f"{deployed.encoded} beside it takes image files")
    if as_json:
        print_json({key: value for key, value in asdict(deployed).items() if key != "live"})
