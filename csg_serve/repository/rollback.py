"""`csg deploy --rollback`: serve an earlier version of a model again."""

from __future__ import annotations

from pathlib import Path

from csg.bundle import LABELS
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
)


def roll_back(
    repository: Path, name: str | None = None, version: int | None = None, *, mode: int | None = None
) -> Deployed:
    """Serve another version of a model again, with the options and the preprocessing it was deployed with.

    Args:
        repository: the model repository.
        name: name of the model. Default: the only one in the repository.
        version: the version to serve. Default: the highest one below the version that is served now.
        mode: permissions of the files, for a server of another user; None: as the umask says.

    Returns:
        The version that is served again.

    Raises:
        InputError: there is no such model or version.
        UsageError: there are several models and no name is given, or the name is invalid.
        ServerError: the running server can't load the version.
        VerificationError: it refuses the version since its answers differ from the golden ones.
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
        live_address = go_live(target, steps)
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
    current = served_version(model_dir)
    matching = [one for one in versions if (one < current if wanted is None else one == wanted)]
    if not matching:
        missing = f"version {wanted}" if wanted else f"version before {current}"
        raise InputError(f"{model_dir.name} has no {missing}", f"it has {', '.join(map(str, sorted(versions)))}")
    return max(matching)


def _only_model(repository: Path) -> str:
    """Return the name of the only model of csg in a repository."""
    configs = {file.parent.name: read_config(file) for file in sorted(repository.glob(f"[!.]*/{CONFIG}"))}
    names = [name for name, config in configs.items() if config and CARD_PARAMETER in config.parameters]
    if len(names) > 1:
        raise UsageError(f"{repository}/ has several models: {', '.join(names)}", "choose one with --name")
    if not names:
        raise InputError(f"{repository}/ has no model", "`csg deploy` adds one")
    return names[0]
