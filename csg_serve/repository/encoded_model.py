"""The model `<name>_encoded`: it takes image files, prepares their pixels, and asks the tensor model `<name>`.

<name>/<version>/preprocessing/       how a version's images are prepared; kept for a rollback:
    config.pbtxt                      of <name>_encoded
    served.json                       the version's card, its largest batch, and the formats of files that it takes
    csg/                              images.py and what it imports, as they were when the version was deployed
<name>_encoded/config.pbtxt           names the version to serve
<name>_encoded/<version>/model.py     csg_serve/python_backend/encoded.py
<name>_encoded/<version>/<version>/   that version's `preprocessing`, and the one of the version served before it, which
                                      is used until the server has switched the tensor model
"""

from __future__ import annotations

import shutil
from importlib.resources import files
from pathlib import Path

from csg.card import ModelCard
from csg.errors import InputError
from csg.strict_json import json_text
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

PREPROCESSING = "preprocessing"
CSG_FILES = (
    *("__init__.py", "card.py", "errors.py", "image_budget.py", "image_headers.py", "image_tags.py"),
    *("images.py", "provenance.py", "records.py", "rgb.py"),
)


def encoded_dir(model_dir: Path) -> Path:
    """Return the folder of the model that takes image files for a tensor model.

    Raises:
        InputError: csg did not write the model there, or wrote it for another one.
    """
    folder = model_dir.with_name(encoded_name(model_dir.name))
    if folder.exists() and not _belongs_to(folder, model_dir.name):
        hint = "deploy with --no-encoded, or under another name with --name"
        raise InputError(f"{folder} was not written by csg for {model_dir.name}", hint)
    return folder


def write_preprocessing(folder: Path, model: str, version: int, card: ModelCard, *, options: DeployOptions) -> None:
    """Write what a version's images are prepared with: the configuration of `<name>_encoded`, the card, csg's code."""
    config = encoded_config(card, model, version, options)
    (folder / "csg").mkdir(parents=True)
    for file in CSG_FILES:
        (folder / "csg" / file).write_bytes(files("csg").joinpath(file).read_bytes())
    batch, formats = config.max_batch_size, options.image_formats
    served = {"max_batch_size": batch, "formats": formats, "card": card.model_dump(mode="json")}
    (folder / "served.json").write_text(json_text(served, indent=None))
    (folder / CONFIG).write_text(config_text(config))


def write_encoded(model_dir: Path, version: int, preprocessing: Path, current: int | None) -> None:
    """Add a version of `<name>_encoded` and make it the one to serve.

    Args:
        model_dir: folder of the tensor model.
        version: version of the tensor model, and of `<name>_encoded`.
        preprocessing: how the version's images are prepared.
        current: version of the tensor model that is served until then; None if the model is new.
    """
    folder = encoded_dir(model_dir)

    def fill(version_dir: Path) -> None:
        write_scripts(ENCODED_MODEL, version_dir)
        shutil.copytree(preprocessing, version_dir / str(version))
        before = model_dir / str(current) / PREPROCESSING
        if before.is_dir():
            shutil.copytree(before, version_dir / str(current))

    if folder.exists():
        for old in folder.glob("[0-9]*"):
            if old.name == str(version) or int(old.name) != served_version(folder):
                shutil.rmtree(old)
    add_version(folder, version, fill, {CONFIG: (preprocessing / CONFIG).read_bytes()})


def remove_encoded(model_dir: Path) -> None:
    """Remove the model that takes image files for a tensor model, if csg wrote one."""
    folder = model_dir.with_name(encoded_name(model_dir.name))
    if _belongs_to(folder, model_dir.name):
        shutil.rmtree(folder)
        unload_model(model_dir.parent, folder.name)


def _belongs_to(folder: Path, model: str) -> bool:
    config = read_config(folder / CONFIG)
    return config is not None and config.parameters[ENCODED_PARAMETER].string_value == model
