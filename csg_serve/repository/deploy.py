"""`csg deploy`: add a bundle to a Triton model repository as the next version of a model.

<repository>/<name>/config.pbtxt    names the version to serve, and carries its card
<repository>/<name>/labels.txt
<repository>/<name>/<version>/      model.onnx, and the scripts of the Python backend
<repository>/<name>_encoded/        the model that takes image files: csg_serve/repository/encoded_model.py
"""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from tritonclient.grpc.model_config_pb2 import ModelConfig

from csg.bundle import BUNDLES, LABELS, Bundle, newest_bundle, read_bundle
from csg.console import log, print_json
from csg.errors import InputError
from csg.files import validate_name
from csg.golden import golden_arrays
from csg_serve.python_backend import TENSOR_MODEL, write_scripts
from csg_serve.python_backend.golden import GOLDEN_ARRAYS
from csg_serve.repository.encoded_model import (
    PREPROCESSING,
    encoded_dir,
    remove_encoded,
    write_encoded,
    write_preprocessing,
)
from csg_serve.repository.modes import parse_mode, set_modes, umask_for
from csg_serve.repository.versions import SwitchStep, add_version, go_live, locked_model, prune, versions_of
from csg_serve.triton.config import (
    CONFIG,
    add_before,
    add_golden,
    config_text,
    encoded_name,
    model_config,
    served_version,
)
from csg_serve.triton.deploy_options import DEFAULTS, DeployOptions, advice, resolve

Check = Callable[[Bundle, Path], None]
"""Looks at a bundle and at the folder of the model that it is to be a version of, and raises what speaks against it."""


def unchecked(bundle: Bundle, model_dir: Path) -> None:
    """The check that lets every bundle pass."""


@dataclass(frozen=True)
class Deployed:
    """A version of a model in a repository."""

    model: str
    """Name of the model."""

    version: int
    """Number of the version."""

    repository: str
    """The repository's folder."""

    backend: str
    """Triton's backend that computes it."""

    encoded: str | None
    """Name of the model that takes image files, if there is one."""

    live_address: str | None
    """gRPC address of the running server that serves it; None if no server of `csg serve` runs on the repository."""


def deploy(
    bundle: Bundle,
    repository: Path,
    name: str | None = None,
    *,
    version: int | None = None,
    options: DeployOptions = DEFAULTS,
    mode: int | None = None,
    check: Check = unchecked,
) -> Deployed:
    """Add a bundle to a model repository as a model's next version, with a model that takes image files for it.

    If `csg serve` runs on the repository, wait until the version is live and verified. A version that does not load or
    answers wrongly is undone.

    Args:
        bundle: what to deploy.
        repository: the model repository; created if it does not exist.
        name: name of the model. Default: the name in the card.
        version: number of the version. Default: one more than the highest.
        options: how the model is served.
        mode: permissions of the files, for a server of another user; None: as the umask says.
        check: called before anything is written, while no other deployment changes the repository.

    Returns:
        The deployed version.

    Raises:
        InputError: the backend needs a TensorRT plan that the bundle does not have; the repository can't be written,
            already has the version, or has a model of the same name that csg did not write.
        ServerError: the running server can't load the version, or gets no answer from it.
        VerificationError: its answers differ from the golden ones.
        UsageError: the name is invalid, or the options do not fit the bundle or each other.
        CsgError: what `check` raises.
    """
    card = bundle.card
    options = resolve(options, card)
    if options.backend == "tensorrt" and (card.engine is None or card.engine.library != "tensorrt"):
        raise InputError(f"{bundle.path} holds no TensorRT plan", "make one with `csg export --format tensorrt`")
    name = validate_name(name or card.name, "model name")
    validate_name(encoded_name(name), "model name")
    with (
        umask_for(mode),
        locked_model(repository, name) as model_dir,
        tempfile.TemporaryDirectory() as scratch,
    ):
        set_modes(mode, repository, content=False)
        number = _next_version(model_dir, version)
        check(bundle, model_dir)
        steps = _steps(bundle, options, model_dir, number, scratch=Path(scratch))
        live_address = go_live(model_dir, number, steps, encoded=options.encoded)
        if not options.encoded:
            remove_encoded(model_dir)
        set_modes(mode, model_dir)
        if options.encoded:
            set_modes(mode, encoded_dir(model_dir))
    encoded = encoded_name(name) if options.encoded else None
    return Deployed(name, number, str(repository), backend=options.backend, encoded=encoded, live_address=live_address)


def deploy_command(
    bundle: Path | None,
    repository: Path,
    *,
    name: str | None,
    version: int | None,
    options: DeployOptions,
    mode: str | None = None,
    check: Check = unchecked,
    as_json: bool,
) -> None:
    """Run `csg deploy`: the newest bundle by default."""
    file_mode = parse_mode(mode) if mode is not None else None
    chosen = read_bundle(bundle or newest_bundle(BUNDLES))
    resolved = resolve(options, chosen.card)
    backend = resolved.backend
    newest, auto = " (newest)" if bundle is None else "", " (auto)" if options.backend == "auto" else ""
    log(f"deploying {chosen.path}{newest} to {repository}/ for the {backend} backend{auto}")
    for line in advice(resolved, chosen.card):
        log(line)
    if chosen.golden is None:
        log("the bundle is of an older csg, without golden answers: what the server answers can't be verified")
    deployed = deploy(chosen, repository, name, version=version, options=options, mode=file_mode, check=check)
    announce(deployed, "is in", as_json)
    if deployed.live_address and (options.response_cache or options.rate_limit):
        log("restart the server if it was started before any model had a response cache or rate limits")


def announce(deployed: Deployed, where: str, as_json: bool) -> None:
    """Print a deployed version, and where it can be reached."""
    state = f"live at {deployed.live_address}" if deployed.live_address else "serve it with `csg serve`"
    log(f"{deployed.model} version {deployed.version} {where} {deployed.repository}/; {state}")
    if deployed.encoded:
        log(f"{deployed.encoded} takes image files for it")
    if as_json:
        print_json({key: value for key, value in asdict(deployed).items() if key != "live_address"})


def _next_version(model_dir: Path, wanted: int | None) -> int:
    versions = versions_of(model_dir)
    if wanted in versions:
        raise InputError(f"{model_dir.name} already has a version {wanted}", "use another number, or omit --version")
    return wanted or max(versions, default=0) + 1


def _steps(bundle: Bundle, options: DeployOptions, model_dir: Path, version: int, *, scratch: Path) -> list[SwitchStep]:
    """Return the steps that make a version live; `scratch` is an empty folder that lives as long as they do.

    `<name>_encoded` is switched first, since it knows both versions; for a new model it comes last, as it needs one.
    """
    preprocessing = scratch / PREPROCESSING if options.encoded else None
    if preprocessing:
        write_preprocessing(preprocessing, model_dir.name, version, bundle.card, options=options)

    current = served_version(model_dir) if model_dir.exists() else None

    def write_tensor_model() -> None:
        config = model_config(bundle.card, model_dir.name, version, options)
        add_golden(config, bundle.golden)
        add_before(config, current)
        prune(model_dir, options.keep)
        extra_files = {LABELS: bundle.labels.read_bytes(), CONFIG: config_text(config).encode()}
        add_version(model_dir, version, lambda folder: _fill(folder, bundle, config, preprocessing), extra_files)

    steps = [SwitchStep(model_dir, write_tensor_model)]
    if preprocessing:
        encoded = SwitchStep(encoded_dir(model_dir), lambda: write_encoded(model_dir, version, preprocessing, current))
        steps.insert(1 if current is None else 0, encoded)
    return steps


def _fill(folder: Path, bundle: Bundle, config: ModelConfig, preprocessing: Path | None) -> None:
    """Write a version's files: the model, and for a rollback its configuration and its preprocessing."""
    for file in [bundle.plan] if bundle.plan and config.backend == "tensorrt" else bundle.graph_files:
        shutil.copyfile(file, folder / file.name)
    (folder / CONFIG).write_text(config_text(config))
    if config.backend == "python":
        write_scripts(TENSOR_MODEL, folder)
        if bundle.golden:
            (folder / GOLDEN_ARRAYS).write_bytes(golden_arrays(bundle.golden, bundle.card))
    if preprocessing:
        shutil.copytree(preprocessing, folder / PREPROCESSING)
