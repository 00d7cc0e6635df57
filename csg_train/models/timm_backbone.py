"""Any timm model as a backbone, `timm:<name>`, through timm's feature interface; needs the extra `timm`.

Its last four feature maps are layer1 to layer4; if it has fewer, the last is still layer4.
"""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from csg.card import Channels
from csg.errors import InputError, UsageError, one_line
from csg.extras import install_command
from csg.folders import why_no_file
from csg_train.models.names import TIMM
from csg_train.models.state_dicts import check_finite

LEVELS = 4


class TimmStages(nn.Module):
    """Normalised images (B, 3, H, W) to the maps of the last stages, (B, C, H, W) each."""

    def __init__(self, name: str, model: nn.Module | None = None):
        super().__init__()
        self.model: nn.Module = model or create(name)
        info: Any = self.model.feature_info
        channels = info.channels()
        names = [f"layer{number}" for number in range(LEVELS - min(LEVELS, len(channels)) + 1, LEVELS + 1)]
        self.channels: dict[str, int] = dict(zip(names, channels[-LEVELS:], strict=True))

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = self.model(x)[-LEVELS:]
        return {
            name: found if found.shape[1] == width else found.permute(0, 3, 1, 2)
            for (name, width), found in zip(self.channels.items(), maps, strict=True)
        }


def create(name: str, weights: Path | None = None, pretrained: bool = False) -> nn.Module:
    """timm's feature model.

    Args:
        name: `timm:<name>`.
        weights: file with pretrained weights; None: timm downloads them.
        pretrained: use pretrained weights, otherwise random ones.

    Raises:
        UsageError: timm is not installed, has no such model, or the model has no feature maps.
        InputError: the weights cannot be downloaded, or belong to another model.
    """
    try:
        import timm
    except ImportError:
        raise UsageError("timm backbones need the package timm", install_command("timm")) from None
    short = name.removeprefix(TIMM)
    if not timm.is_model(short):
        close = ", ".join(timm.list_models(f"*{short.split('_')[0]}*")[:5])
        raise UsageError(f"timm has no model {short!r}", f"it has {close or 'others: see timm.list_models()'}")
    file = {"pretrained_cfg_overlay": {"file": str(weights)}} if weights else {}
    try:
        if weights:
            _check_file(short, weights)
        model: nn.Module = timm.create_model(short, features_only=True, pretrained=pretrained, **file)
    except (RuntimeError, AttributeError) as error:
        if not pretrained:
            raise UsageError(f"timm's {short} has no feature maps: {one_line(error)}", "use another backbone") from None
        raise InputError(
            f"no pretrained weights for {name}: {one_line(error, 160)}", "give them with --weights FILE"
        ) from None
    except Exception as error:  # timm does not catch what its hub client raises
        raise InputError(
            f"no pretrained weights for {name}: {one_line(error, 160)}", "give them with --weights FILE"
        ) from None
    return model


def _check_file(short: str, file: Path) -> None:
    """Raise an exception unless a file holds all weights of a model but its head: timm itself takes what fits."""
    import timm

    if not file.is_file():
        raise ValueError(f"{file} {why_no_file(file)}")
    heads = timm.get_pretrained_cfg(short).classifier or ()
    heads = (heads,) if isinstance(heads, str) else tuple(heads)
    try:
        state = timm.models.load_state_dict(str(file))
    except pickle.UnpicklingError:  # its message advises to run the code in the file
        raise ValueError(f"{file} is damaged, or holds more than tensors") from None
    state = {key: value for key, value in state.items() if not key.startswith(heads)}
    with torch.device("meta"):
        found = timm.create_model(short).load_state_dict(state, strict=False, assign=True)
    other = [key for key in (*found.missing_keys, *found.unexpected_keys) if not key.startswith(heads)]
    if other:
        raise ValueError(f"{file} holds other weights: {len(other)} differ, the first {other[0]}")
    check_finite(state)


def check_size(name: str, side: int) -> None:
    """Check that the model takes images of a size, by running it without weights and values.

    Args:
        name: `timm:<name>`.
        side: height and width of the images in pixels.

    Raises:
        UsageError: it does not, or as `create`.
    """
    with torch.device("meta"), torch.inference_mode():
        model = create(name).eval()
        try:
            model(torch.empty(1, 3, side, side))
        except (AssertionError, RuntimeError, ValueError) as error:
            own = model_size(name)
            raise UsageError(
                f"{name} takes no images of {side} x {side} pixels: {one_line(error, 160).rstrip('.')}",
                f"use its own size: --set data.size={own} --set data.resize={own}, or more for data.resize",
            ) from None


def model_size(name: str) -> int:
    """Side in pixels of the images that the model was trained on."""
    return int(pretrained_config(name).input_size[-1])


def normalisation(name: str) -> tuple[Channels, Channels]:
    """Mean and standard deviation of the channels, in 0..1, that the model was trained with."""
    config = pretrained_config(name)
    return tuple(config.mean), tuple(config.std)


def pretrained_config(name: str) -> Any:
    """timm's description of the pretrained weights of a model, `timm:<name>`."""
    import timm

    return timm.get_pretrained_cfg(name.removeprefix(TIMM))
