"""From a bundle to the next version of a model in a Triton model repository.

<repository>/<name>/config.pbtxt    names the version to serve, and carries its card
<repository>/<name>/labels.txt
<repository>/<name>/<version>/      model.onnx, and model.py for the Python backend
"""

from __future__ import annotations

import fcntl
import py_compile
import re
import shutil
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path

from csg.bundle import LABELS, Bundle, newest_bundle, read_bundle
from csg.console import print_json, say
from csg.errors import InputError, ServerError, UsageError
from csg.files import new_folder, plain_name, write_bytes
from csg_serve.config import CARD_PARAMETER, card_of, config_text, model_config, read_config
from csg_serve.control import wait_until_live
from csg_serve.triton import best_backend

CONFIG = "config.pbtxt"
BUNDLES = Path("bundles")


@dataclass(frozen=True)
class Deployed:
    """A version of a model in a repository; `live` is the gRPC address of the running server that has it, or None."""

    model: str
    version: int
    repository: str
    backend: str
    live: str | None


def deploy(bundle: Path, repository: Path, name: str | None, backend: str, version: int | None = None) -> Deployed:
    """Add a bundle to a model repository as the model's next version.

    The version's folder is written aside and renamed; replacing `config.pbtxt` then makes it the served one. Where
    `csg serve` runs on the repository, wait until the version is live, and take it back if it does not load.

    Args:
        name: the model's name there; the card's by default.
        backend: "python", "onnxruntime" or "tensorrt".
        version: its number; one more than the highest there by default.

    Raises:
        InputError: this is no bundle, the backend needs a plan that it has not, the repository can't be written, has a
            model of that name from elsewhere, or has that version.
        PromiseError: the bundle was changed after the export.
        ServerError: the running server can't load it.
        UsageError: the name is no plain name.
    """
    opened = read_bundle(bundle)
    if backend == "tensorrt" and (opened.card.engine is None or opened.card.engine.library != "tensorrt"):
        raise InputError(f"{bundle} holds no TensorRT plan", "make one with `csg export --format tensorrt`")
    name = plain_name(name or opened.card.name, "model name")
    with _changing(repository, name) as home:
        taken = _versions(home)
        version = version or max(taken, default=0) + 1
        if version in taken:
            raise InputError(f"{name} has a version {version} already", "take another, or leave --version out")
        live = _go_live(home, version, lambda: _write(home, version, opened, backend))
    return Deployed(name, version, str(repository), backend, live)


def roll_back(repository: Path, name: str | None, version: int | None) -> Deployed:
    """Serve an earlier version again: the highest below the one that is served now, or the named one.

    Raises:
        InputError: there is no such model or version.
        UsageError: there are several models and none was named.
        ServerError: the running server can't load it.
    """
    name = plain_name(name or _only_model(repository), "model name")
    with _changing(repository, name) as home:
        taken = _versions(home)
        if not taken:
            raise InputError(f"no model {name} in {repository}/", "see `csg models`, or the folder")
        now = _served(home)
        earlier = [one for one in taken if one < now] if version is None else [one for one in taken if one == version]
        if not earlier:
            wanted = f"version {version}" if version else f"version before {now}"
            raise InputError(f"{name} has no {wanted}", f"it has {', '.join(map(str, sorted(taken)))}")
        back = max(earlier)
        config = read_config(home / str(back) / CONFIG)
        if config is None:
            raise InputError(f"{home / str(back)} has no {CONFIG} of its own", "deploy its bundle again")
        labels = "".join(f"{label}\n" for label in card_of(config, str(home)).classes)
        live = _go_live(home, back, lambda: _point_at(home, labels.encode(), config_text(config).encode()))
    return Deployed(name, back, str(repository), config.backend, live)


@contextmanager
def _changing(repository: Path, name: str) -> Iterator[Path]:
    """The model's folder, with no other deployment at work on it."""
    home = repository / name
    try:
        with _alone(repository):
            _remove_remains(home)
            yield home
    except OSError as error:
        raise InputError(f"can't write {error.filename or home}: {error.strerror}", "nothing was deployed") from None


def _go_live(home: Path, version: int, change: Callable[[], None]) -> str | None:
    """Make the change; if the running server can't load the version then, serve what was served before."""
    before = {file: file.read_bytes() for file in (home / LABELS, home / CONFIG) if file.exists()}
    change()
    try:
        return wait_until_live(home.parent, home.name, version)
    except ServerError:
        _take_back(home, before)
        raise


def _point_at(home: Path, labels: bytes, config: bytes) -> None:
    write_bytes(home / LABELS, labels)
    write_bytes(home / CONFIG, config)


def _only_model(repository: Path) -> str:
    """The one model of ours in a repository."""
    configs = {file.parent.name: read_config(file) for file in sorted(repository.glob(f"[!.]*/{CONFIG}"))}
    ours = [name for name, config in configs.items() if config and CARD_PARAMETER in config.parameters]
    if len(ours) != 1:
        what = f"{repository}/ has {'several models: ' + ', '.join(ours) if ours else 'no model'}"
        raise UsageError(what, "name one with --name") if ours else InputError(what, "`csg deploy` puts one there")
    return ours[0]


def _served(home: Path) -> int:
    """The version that the configuration names."""
    config = read_config(home / CONFIG)
    assert config is not None
    return int(config.version_policy.specific.versions[0])


def _write(home: Path, version: int, bundle: Bundle, backend: str) -> None:
    """Add a version to the model folder `home`, or make the folder with it, in one move."""
    config = config_text(model_config(bundle.card, home.name, version, backend)).encode()
    if home.exists():
        with new_folder(home / str(version)) as fresh:
            _fill(fresh, bundle, backend, config)
        _point_at(home, bundle.labels.read_bytes(), config)
    else:
        with new_folder(home) as fresh:
            (fresh / str(version)).mkdir()
            _fill(fresh / str(version), bundle, backend, config)
            shutil.copyfile(bundle.labels, fresh / LABELS)
            (fresh / CONFIG).write_bytes(config)


def _fill(folder: Path, bundle: Bundle, backend: str, config: bytes) -> None:
    """A version's files, its configuration among them, for a way back to it."""
    for file in [bundle.plan] if bundle.plan and backend == "tensorrt" else bundle.graph:
        shutil.copyfile(file, folder / file.name)
    (folder / CONFIG).write_bytes(config)
    if backend == "python":
        script = folder / "model.py"
        script.write_bytes(files("csg_serve.python_backend").joinpath("model.py").read_bytes())
        # Python would add its cache beside the script at the first load, and the polling server load the model again
        py_compile.compile(str(script), invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)


def _take_back(home: Path, before: dict[Path, bytes]) -> None:
    """Serve what was served before: Triton would try a version that does not load again and again."""
    for file, content in before.items():
        write_bytes(file, content)
    if not before:
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
    for remains in (*home.parent.glob(f".{home.name}.*/"), *home.glob(".*.*/")):
        shutil.rmtree(remains)


@contextmanager
def _alone(repository: Path) -> Iterator[None]:
    """Hold back other deployments into the same repository."""
    repository.mkdir(parents=True, exist_ok=True)
    with (repository / ".csg-deploy.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def deploy_command(
    bundle: Path | None, repository: Path, name: str | None, backend: str, version: int | None, as_json: bool
) -> None:
    """`csg deploy`: say what was taken by default, deploy, and say where it is."""
    chosen = bundle or newest_bundle(BUNDLES)
    kind = best_backend(read_bundle(chosen).card) if backend == "auto" else backend
    newest, auto = " (newest)" if bundle is None else "", " (auto)" if backend == "auto" else ""
    say(f"deploying {chosen}{newest} to {repository}/ for the {kind} backend{auto}")
    _announce(deploy(chosen, repository, name, kind, version), "is in", as_json)


def roll_back_command(repository: Path, name: str | None, version: int | None, as_json: bool) -> None:
    """`csg deploy --rollback`: serve an earlier version again, and say which."""
    _announce(roll_back(repository, name, version), "is served again from", as_json)


def _announce(deployed: Deployed, where: str, as_json: bool) -> None:
    state = f"live at {deployed.live}" if deployed.live else "serve it with `csg serve`"
    say(f"{deployed.model} version {deployed.version} {where} {deployed.repository}/; {state}")
    if as_json:
        print_json({key: value for key, value in asdict(deployed).items() if key != "live"})
