"""timm's models by name, `timm:<name>`: what timm says of one, and its feature model; needs the extra `timm`."""

from __future__ import annotations

import contextlib
import functools
import re
from typing import Any

import torch
from torch import nn

from csg.card import STRIDE, Channels
from csg.errors import UsageError, one_line
from csg.extras import install_command
from csg_train.models.names import TIMM

LEVELS = 4
"""Maps that an encoder gives."""
AFTER_BLOCKS = ("norm", "fc", "head", "classifier")
"""Starts of the names, in timm, of what follows the last block."""


def check_name(name: str) -> str:
    """timm's own name of a model, `timm:<name>` or `timm:<name>.<tag of weights>`.

    Raises:
        UsageError: timm is not installed, or has no such model, or no such weights of it.
    """
    try:
        import timm
    except ImportError:
        raise UsageError("timm backbones need the package timm", install_command("timm")) from None
    short = name.removeprefix(TIMM)
    if not timm.is_model(short):
        close = ", ".join(timm.list_models(f"*{short.split('_')[0]}*")[:5])
        raise UsageError(f"timm has no model {short!r}", f"it has {close or 'others: see timm.list_models()'}")
    model, dot, tag = short.partition(".")
    known = [name.partition(".")[2] for name in timm.list_pretrained(f"{model}.*")]
    if dot and tag not in known:
        raise UsageError(f"timm's {model} has no weights {tag!r}", f"it has {', '.join(known[:5]) or 'none'}")
    return short


@functools.cache
def meta_model(short: str) -> Any:
    """The whole network, without values."""
    import timm

    with torch.device("meta"):
        return timm.create_model(short)


def model_size(name: str) -> int:
    """Side in pixels of the images that the model was trained on."""
    return int(pretrained_config(name).input_size[-1])


def normalisation(name: str) -> tuple[Channels, Channels]:
    """Mean and standard deviation of the channels, in 0..1, that the model was trained with."""
    config = pretrained_config(name)
    return tuple(config.mean), tuple(config.std)


def pretrained_config(name: str) -> Any:
    """timm's description of the pretrained weights of a model, `timm:<name>`; raises as `check_name`."""
    short = check_name(name)
    import timm

    return timm.get_pretrained_cfg(short)


def weights_page(name: str) -> str | None:
    """Where the pretrained weights of a model are published; None if timm knows none. Raises as `check_name`."""
    config = pretrained_config(name)
    return f"https://huggingface.co/{config.hf_hub_id}" if config.hf_hub_id else config.url or None


def multiple_of(name: str) -> int:
    """What must divide the height and width of images: the side of a patch; 1 for convolutional networks.

    Patches that overlap are convolutions; a hybrid's patch is one of its convolutions' map.

    Raises:
        UsageError: as `check_name`.
    """
    model = meta_model(check_name(name))
    info = getattr(model, "feature_info", None)
    first = int(info[0]["reduction"]) if isinstance(info, list) and info else 0
    if _plain_vit_depth(name.removeprefix(TIMM)):
        return first
    patch = getattr(getattr(model, "patch_embed", None), "patch_size", None) or 1
    side = int(max(patch)) if isinstance(patch, tuple) else int(patch)
    return 1 if first % side else side


def _plain_vit_depth(short: str) -> int | None:
    """The number of blocks of a network whose maps all have one stride; None for one with stages."""
    model = meta_model(short)
    info = getattr(model, "feature_info", None)
    if not isinstance(info, list) or not hasattr(model, "forward_intermediates"):
        return None
    return len(info) if len({level["reduction"] for level in info}) == 1 and len(info) >= LEVELS else None


def _is_swin(short: str) -> bool:
    return short.startswith("swin") and hasattr(meta_model(short), "set_input_size")


def plain_name(name: str) -> str:
    """A parameter's name, the same in a network and in its feature model, where timm may put the network under another
    name and writes `_` for some dots; a part of a parametrized weight has the name of that weight."""
    name = re.sub(r"\.parametrizations\.(\w+)\..*", r".\1", name)
    return re.sub(r"^(model\.)?(body\.)?", "", name.replace("_", ".")) + "."


@functools.cache
def block_numbers(short: str) -> dict[str, int]:
    """The number of each parameter's block, by plain name; what has none belongs to the last block."""
    from timm.models import group_parameters

    model = meta_model(short)
    if not hasattr(model, "group_matcher"):
        return {plain_name(name): 0 for name, _ in model.named_parameters()}
    numbers: dict[str, int] = group_parameters(model, model.group_matcher(coarse=False), reverse=True)
    last = max(number for name, number in numbers.items() if not name.startswith(AFTER_BLOCKS))
    return {plain_name(name): min(number, last) for name, number in numbers.items()}


def create(name: str, any_size: bool = False, dilated: bool = False) -> nn.Module:
    """timm's feature model with random weights.

    Args:
        name: `timm:<name>`.
        any_size: let it take images of any height and width, where it is made for one size: position embeddings are
            resampled in every pass, and Swin keeps its windows and masks for the image at hand.
        dilated: at output stride 8, where timm can dilate the network.

    Raises:
        UsageError: timm is not installed, has no such model, or the model has no feature maps.
    """
    short = check_name(name)
    try:
        depth = _plain_vit_depth(short)
        if depth is None and not _is_swin(short):
            return _with_stages(short, dilated)
        return _with_final_norm(short, depth, any_size)
    except (RuntimeError, AttributeError) as error:
        raise UsageError(f"timm's {short} has no feature maps: {one_line(error)}", "use another backbone") from None


def _with_stages(short: str, dilated: bool) -> nn.Module:
    import timm

    if dilated:
        with contextlib.suppress(TypeError, ValueError, NotImplementedError, AssertionError):  # it has fixed strides
            dilated_stages: nn.Module = timm.create_model(short, features_only=True, output_stride=STRIDE)
            return dilated_stages
    stages: nn.Module = timm.create_model(short, features_only=True)
    return stages


def _with_final_norm(short: str, depth: int | None, any_size: bool) -> nn.Module:
    import timm
    from timm.models._features import FeatureGetterNet

    free = {"dynamic_img_size": True} | ({} if depth else {"always_partition": True}) if any_size else {}
    try:
        model = timm.create_model(short, num_classes=0, **free)
    except TypeError:  # it takes images of its own size only
        model = timm.create_model(short, num_classes=0)
    at = [depth * quarter // LEVELS - 1 for quarter in range(1, LEVELS + 1)] if depth else list(range(LEVELS))
    getter: nn.Module = FeatureGetterNet(model, out_indices=at, norm=True)
    return getter
