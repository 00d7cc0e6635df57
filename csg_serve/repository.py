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
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path

from csg.bundle import LABELS, Bundle, newest_bundle, read_bundle
from csg.console import print_json, say
from csg.errors import InputError, ServerError
from csg.files import new_folder, plain_name, write_bytes
from csg_serve.config import CARD_PARAMETER, config_text, model_config, read_config
from csg_serve.server import wait_until_live
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


def deploy(bundle: Path, repository: Path, name: str | None, backend: str) -> Deployed:
    """Add a bundle to a model repository as the model's next version.

    The version's folder is written aside and renamed; replacing `config.pbtxt` then makes it the served one. Where
    `csg serve` runs on the repository, wait until the version is live, and take it back if it does not load.

    Args:
        name: the model's name there; the card's by default.
        backend: "python" or "onnxruntime".

    Raises:
        InputError: this is no bundle, the repository can't be written, or has a model of that name from elsewhere.
        PromiseError: the bundle was changed after the export.
        ServerError: the running server can't load it.
        UsageError: the name is no plain name.
    """
    opened = read_bundle(bundle)
    name = plain_name(name or opened.card.name, "model name")
    home = repository / name
    try:
        with _alone(repository):
            _remove_remains(home)
            version = max(_versions(home), default=0) + 1
            before = {file: file.read_bytes() for file in (home / LABELS, home / CONFIG) if file.exists()}
            _write(home, version, opened, backend)
            try:
                live = wait_until_live(repository, name, version)
            except ServerError:
                _take_back(home, before)
                raise
    except OSError as error:
        raise InputError(f"can't write {error.filename or home}: {error.strerror}", "nothing was deployed") from None
    return Deployed(name, version, str(repository), backend, live)


def _write(home: Path, version: int, bundle: Bundle, backend: str) -> None:
    """Add a version to the model folder `home`, or make the folder with it, in one move."""
    config = config_text(model_config(bundle.card, home.name, version, backend)).encode()
    if home.exists():
        with new_folder(home / str(version)) as fresh:
            _fill(fresh, bundle, backend)
        write_bytes(home / LABELS, bundle.labels.read_bytes())
        write_bytes(home / CONFIG, config)
    else:
        with new_folder(home) as fresh:
            (fresh / str(version)).mkdir()
            _fill(fresh / str(version), bundle, backend)
            shutil.copyfile(bundle.labels, fresh / LABELS)
            (fresh / CONFIG).write_bytes(config)


def _fill(folder: Path, bundle: Bundle, backend: str) -> None:
    for file in bundle.graph:
        shutil.copyfile(file, folder / file.name)
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


def deploy_command(bundle: Path | None, repository: Path, name: str | None, backend: str, as_json: bool) -> None:
    """`csg deploy`: say what was taken by default, deploy, and say where it is."""
    chosen = bundle or newest_bundle(BUNDLES)
    kind = best_backend(read_bundle(chosen).card) if backend == "auto" else backend
    newest, auto = " (newest)" if bundle is None else "", " (auto)" if backend == "auto" else ""
    say(f"deploying {chosen}{newest} to {repository}/ for the {kind} backend{auto}")
    deployed = deploy(chosen, repository, name, kind)
    state = f"live at {deployed.live}" if deployed.live else "serve it with `csg serve`"
    say(f"{deployed.model} version {deployed.version} is in {repository}/; {state}")
    if as_json:
        print_json({key: value for key, value in asdict(deployed).items() if key != "live"})
