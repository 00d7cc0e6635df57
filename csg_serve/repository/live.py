"""The version of a model that is live, as a bundle that can be opened in this process."""

from __future__ import annotations

from pathlib import Path

from csg.bundle import Bundle
from csg.errors import InputError
from csg_serve.repository.versions import versions_of
from csg_serve.triton.config import CONFIG, card_of, golden_of, read_config, served_version


def live_bundle(model_dir: Path) -> tuple[int, Bundle] | None:
    """The version that a model's folder names as the one to serve.

    Returns:
        its number, and a bundle of its files, which have no checksums; None if there is no such model yet.

    Raises:
        InputError: csg did not write the model; its configuration is damaged, or the version has no ONNX file.
    """
    if not versions_of(model_dir):
        return None
    version, config = served_version(model_dir), read_config(model_dir / CONFIG)
    assert config
    where = str(model_dir / CONFIG)
    card = card_of(config, where)
    bundle = Bundle(model_dir / str(version), card, golden_of(config, card, where))
    if not bundle.model.is_file():
        raise InputError(
            f"version {version} of {model_dir.name} has no {bundle.model.name}, so it can't answer in this process",
            "compare through its server, with `csg evaluate --against`",
        )
    return version, bundle
