"""The model `<name>_encoded` beside a tensor model: it takes image files, prepares them, and asks the tensor model.

<name>/<version>/preparing/           what a version's images are prepared with, kept for a way back to it:
    config.pbtxt                      of <name>_encoded
    served.json                       the version's card and its largest batch
    csg/                              images.py and what it is made of, as they were when the version was deployed
<name>_encoded/config.pbtxt           names the version to serve
<name>_encoded/<version>/model.py     csg_serve/python_backend/encoded.py
<name>_encoded/<version>/<version>/   that version's `preparing`; another one of the version served before it, which is
                                      asked until the tensor model has been switched
"""

from __future__ import annotations

import json
import shutil
from importlib.resources import files
from pathlib import Path

from csg.card import ModelCard
from csg.errors import InputError
from csg_serve.python_backend import ENCODED_MODEL, write_scripts
from csg_serve.repository.versions import add_version
from csg_serve.server.control import unload_model
from csg_serve.triton.config import (
    CONFIG,
    ENCODED_PARAMETER,
    config_text,
    encoded_config,
    encoded_name,
    read_config,
    served_version,
)
from csg_serve.triton.deploy_options import DeployOptions

PREPARING = "preparing"
CSG_FILES = ("__init__.py", "card.py", "errors.py", "images.py")


def encoded_home(home: Path) -> Path:
    """The folder of the model that takes image files for the tensor model in `home`.

    Raises:
        InputError: there is a model of that name that csg did not write for this one.
    """
    beside = home.with_name(encoded_name(home.name))
    if beside.exists() and not _is_for(beside, home.name):
        hint = "deploy with --no-encoded, or another name with --name"
        raise InputError(f"{beside} was not written by csg for {home.name}", hint)
    return beside


def fill_preparing(folder: Path, name: str, version: int, card: ModelCard, options: DeployOptions) -> None:
    """Write what a version's images are prepared with."""
    config = encoded_config(card, name, version, options)
    (folder / "csg").mkdir(parents=True)
    for file in CSG_FILES:
        (folder / "csg" / file).write_bytes(files("csg").joinpath(file).read_bytes())
    served = {"max_batch_size": config.max_batch_size, "card": card.model_dump(mode="json")}
    (folder / "served.json").write_text(json.dumps(served))
    (folder / CONFIG).write_text(config_text(config))


def write_encoded(home: Path, version: int, preparing: Path, now: int | None) -> None:
    """Make the version of `<name>_encoded` that prepares images for this version of the tensor model, and point at it.

    Args:
        home: the tensor model's folder.
        preparing: what the version's images are prepared with.
        now: the version of the tensor model that is served until then.
    """
    beside = encoded_home(home)

    def fill(folder: Path) -> None:
        write_scripts(ENCODED_MODEL, folder)
        shutil.copytree(preparing, folder / str(version))
        before = home / str(now) / PREPARING
        if before.is_dir():
            shutil.copytree(before, folder / str(now))

    if beside.exists():
        for old in beside.glob("[0-9]*"):
            if old.name == str(version) or int(old.name) != served_version(beside):
                shutil.rmtree(old)
    add_version(beside, version, fill, {CONFIG: (preparing / CONFIG).read_bytes()})


def remove_encoded(home: Path) -> None:
    """Remove the model that takes image files for the tensor model in `home`, where csg wrote one."""
    beside = home.with_name(encoded_name(home.name))
    if _is_for(beside, home.name):
        shutil.rmtree(beside)
        unload_model(home.parent, beside.name)


def _is_for(beside: Path, name: str) -> bool:
    config = read_config(beside / CONFIG)
    return config is not None and config.parameters[ENCODED_PARAMETER].string_value == name
