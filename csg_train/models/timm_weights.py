"""Pretrained weights of timm's models: timm's own look-up with its cache, or a file."""

from __future__ import annotations

import logging
import pickle
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor

from csg.console import log
from csg.errors import InputError, one_line
from csg.folders import why_no_file
from csg_train.models.state_dicts import check_finite
from csg_train.models.timm_model import check_name, meta_model, weights_page


def load_state(name: str, file: Path | None) -> dict[str, Tensor]:
    """The pretrained state dict of a timm model at its own size, with its classifier where it has one.

    Args:
        name: `timm:<name>`.
        file: state dict as timm has it, safetensors or torch's; None: timm's own, from its cache or a download that
            it checks.

    Raises:
        UsageError: as `check_name`.
        InputError: the weights cannot be downloaded, or belong to another model.
    """
    short = check_name(name)
    if file is None:
        return _look_up(name, short)
    try:
        return _read_file(short, file)
    except Exception as error:
        raise InputError(
            f"no pretrained weights for {name}: {one_line(error, 160)}", "give them with --weights FILE"
        ) from None


def published_at(name: str) -> str:
    """Where the pretrained weights of a timm model are published.

    Args:
        name: `timm:<name>`.

    Raises:
        UsageError: as `check_name`.
        InputError: timm knows none.
    """
    if page := weights_page(name):
        return page
    raise InputError(f"timm knows no pretrained weights of {name}", "give some with --weights FILE, or use none")


def _look_up(name: str, short: str) -> dict[str, Tensor]:
    """The weights that timm has in its cache, or downloads and checks."""
    import timm

    where = published_at(name)
    log(f"weights of {name}: {where}, or the copy in timm's cache")
    try:
        with _quiet_hub():
            state: dict[str, Tensor] = timm.create_model(short, pretrained=True).state_dict()
    except Exception as error:  # timm does not catch what its hub client raises
        raise InputError(
            f"no pretrained weights for {name}: {one_line(error, 160)}",
            f"get them from {where} elsewhere, and name the file with --weights FILE",
        ) from None
    return state


@contextmanager
def _quiet_hub() -> Iterator[None]:
    """Without the lines that the hub's client writes for each of its attempts to reach the hub."""
    logger = logging.getLogger("huggingface_hub")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        yield
    finally:
        logger.setLevel(level)


def _read_file(short: str, file: Path) -> dict[str, Tensor]:
    """The tensors of a file; ValueError unless it holds all weights of a model but its classifier."""
    import timm

    if not file.is_file():
        raise ValueError(f"{file} {why_no_file(file)}")
    heads = timm.get_pretrained_cfg(short).classifier or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    try:
        state: dict[str, Tensor] = timm.models.load_state_dict(str(file))
    except pickle.UnpicklingError:  # its message advises to run the code in the file
        raise ValueError(f"{file} is damaged, or holds more than tensors") from None
    body = {key: value for key, value in state.items() if not key.startswith(heads)}
    with torch.device("meta"):
        found = timm.create_model(short).load_state_dict(body, strict=False, assign=True)
    other = [key for key in (*found.missing_keys, *found.unexpected_keys) if not key.startswith(heads)]
    if other:
        raise ValueError(f"{file} holds other weights: {len(other)} differ, the first {other[0]}")
    check_finite(body)
    return state


def renamed(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors of a file that has those of a timm model in their order, under timm's names."""
    own = meta_model(check_name(name)).state_dict()
    return {key: tensor for (key, _), tensor in zip(own.items(), state.values(), strict=True)}
