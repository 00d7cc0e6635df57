"""`csg deploy --rollback`: serve an earlier version of a model again."""

from __future__ import annotations

from pathlib import Path

from csg.bundle import LABELS
from csg.console import log
from csg.errors import InputError, UsageError
from csg.files import validate_name
from csg_serve.repository.deploy import Deployed, announce
from csg_serve.repository.encoded_model import PREPROCESSING, encoded_dir, remove_encoded, write_encoded
from csg_serve.repository.modes import parse_mode, set_modes, umask_for
from csg_serve.repository.versions import SwitchStep, go_live, locked_model, point_at, versions_of
from csg_serve.triton.config import (
    CARD_PARAMETER,
    CONFIG,
    card_of,
    config_text,
    encoded_name,
    read_config,
    served_version,
    version_before,
)
from csg_serve.triton.failures import why_failed


def roll_back(
    repository: Path, name: str | None = None, version: int | None = None, *, mode: int | None = None
) -> Deployed:
    """Serve another version of a model again, with the options and the preprocessing it was deployed with.

    Args:
        repository: the model repository.
        name: name of the model. Default: the only one in the repository.
        version: the version to serve. Default: the one that was served before, as far as it did not fail.
        mode: permissions of the files, for a server of another user; None: as the umask says.

    Returns:
        The version that is served again.

    Raises:
        InputError: there is no such model or version.
        UsageError: there are several models and no name is given, or the name is invalid.
        ServerError: the running server can't load the version, or gets no answer from it.
        VerificationError: its answers differ from the golden ones.
    """
    name = validate_name(name or _only_model(repository), "model name")
    with umask_for(mode), locked_model(repository, name) as model_dir:
        set_modes(mode, repository, content=False)
        target, current = _target_version(model_dir, version), served_version(model_dir)
        config = read_config(model_dir / str(target) / CONFIG)
        if config is None:
            raise InputError(f"{model_dir / str(target)} holds no valid {CONFIG}", "deploy its bundle again")
        labels = "".join(f"{label}\n" for label in card_of(config, str(model_dir)).classes)
        extra_files = {LABELS: labels.encode(), CONFIG: config_text(config).encode()}
        steps = [SwitchStep(model_dir, lambda: point_at(model_dir, extra_files))]
        preprocessing = model_dir / str(target) / PREPROCESSING
        encoded = encoded_name(name) if preprocessing.is_dir() else None
        if encoded and target != current:
            switch = SwitchStep(
                encoded_dir(model_dir), lambda: write_encoded(model_dir, target, preprocessing, current)
            )
            steps.insert(0, switch)
        live_address = go_live(model_dir, target, steps, encoded=encoded is not None)
        if not encoded:
            remove_encoded(model_dir)
        set_modes(mode, model_dir)
        if encoded:
            set_modes(mode, encoded_dir(model_dir))
    return Deployed(name, target, str(repository), backend=config.backend, encoded=encoded, live_address=live_address)


def roll_back_command(
    repository: Path, name: str | None, *, version: int | None, mode: str | None, as_json: bool
) -> None:
    """Run `csg deploy --rollback`."""
    rolled_back = roll_back(repository, name, version, mode=parse_mode(mode) if mode is not None else None)
    announce(rolled_back, "is served again from", as_json)


def _target_version(model_dir: Path, wanted: int | None) -> int:
    versions = versions_of(model_dir)
    if not versions:
        raise InputError(f"no model {model_dir.name} in {model_dir.parent}/", "see the folder, or `csg models`")
    has = f"it has {', '.join(map(str, sorted(versions)))}"
    if wanted is None:
        return _earlier_version(model_dir, versions, has)
    if wanted not in versions:
        raise InputError(f"{model_dir.name} has no version {wanted}", has)
    if reason := why_failed(model_dir, wanted):
        log(f"{model_dir.name} version {wanted} failed before: {reason}")
    return wanted


def _earlier_version(model_dir: Path, versions: list[int], has: str) -> int:
    """Return the version that was served before, or the one before that if it failed, and so on.

    If none of them is left, the highest one below the current version that did not fail.
    """
    current = served_version(model_dir)
    failed = {version: reason for version in versions if (reason := why_failed(model_dir, version))}
    seen, version = {current}, version_before(model_dir, current)
    while version in versions and version not in seen:
        if version not in failed:
            return version
        seen.add(version)
        version = version_before(model_dir, version)
    below = [version for version in versions if version < current]
    good = [version for version in below if version not in failed]
    if good:
        return max(good)
    if below:
        what = f"{model_dir.name} has no version before {current} that worked: {failed[max(below)]}"
        raise InputError(what, f"choose one with --version; {has}")
    raise InputError(f"{model_dir.name} has no version before {current}", has)


def _only_model(repository: Path) -> str:
    """Return the name of the only model of csg in a repository."""
    configs = {file.parent.name: read_config(file) for file in sorted(repository.glob(f"[!.]*/{CONFIG}"))}
    names = [name for name, config in configs.items() if config and CARD_PARAMETER in config.parameters]
    if len(names) > 1:
        raise UsageError(f"{repository}/ has several models: {', '.join(names)}", "choose one with --name")
    if not names:
        raise InputError(f"{repository}/ has no model", "`csg deploy` adds one")
    return names[0]
