"""Pretrained weights of timm's models: timm's own look-up with its cache, or a file."""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
from torch import Tensor

from csg.errors import InputError, one_line
from csg.folders import why_no_file
from csg_train.models.state_dicts import check_finite
from csg_train.models.timm_model import check_name, meta_model


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
    try:
        if file is not None:
            return _read_file(short, file)
        import timm

        state: dict[str, Tensor] = timm.create_model(short, pretrained=True).state_dict()
        return state
    except Exception as error:  # timm does not catch what its hub client raises
        raise InputError(
            f"no pretrained weights for {name}: {one_line(error, 160)}", "give them with --weights FILE"
        ) from None


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
