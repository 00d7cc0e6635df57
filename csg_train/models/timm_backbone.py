"""Any timm model as a backbone, `timm:<name>`, through timm's feature interface; needs the extra `timm`.

A network with stages gives its last four feature maps as layer1 to layer4; if it has fewer, the last is still layer4.
A plain ViT has one stride at every depth: its maps are those after a quarter, a half, three quarters and all of its
blocks (3, 6, 9 and 12 of 12), each through its final norm, as in DINOv2's dense tasks (Oquab et al. 2024, section 7.4).
Swin's final norm is applied to layer4, the map that it is made for.
"""

from __future__ import annotations

import contextlib
import functools
import math
import re
from typing import Any

import torch
from torch import Tensor, nn

from csg.card import STRIDE, Channels
from csg.errors import UsageError, one_line
from csg.extras import install_command
from csg_train.models.names import TIMM

LEVELS = 4
AFTER_BLOCKS = ("norm", "fc", "head", "classifier")
"""Starts of the names, in timm, of what follows the last block."""
Size = tuple[int, int]
"""Height and width of images in pixels."""


class TimmStages(nn.Module):
    """Normalised images (B, 3, H, W) to the maps of the stages, (B, C, H / s, W / s) each.

    Args:
        name: `timm:<name>`.
        weights: state dict as timm has it, at the network's own size, with or without the classifier; None: random.
        size: the one size of images; None: any height and width that `multiple` divides.
        dilated: at output stride 8, where timm can dilate the network.
    """

    def __init__(
        self, name: str, weights: dict[str, Tensor] | None = None, size: Size | None = None, dilated: bool = False
    ):
        super().__init__()
        self.name = name
        self.model: nn.Module = create(name, any_size=size is None, dilated=dilated)
        if weights is not None:
            _load(self.model, weights)
        if size is not None:
            _set_size(self.model, size)
        info: Any = self.model.feature_info
        count = min(LEVELS, len(info.channels()))
        self.names = [f"layer{number}" for number in range(LEVELS - count + 1, LEVELS + 1)]
        self.channels: dict[str, int] = dict(zip(self.names, info.channels()[-count:], strict=True))
        self.strides: dict[str, int] = dict(zip(self.names, info.reduction()[-count:], strict=True))
        self.multiple = multiple_of(name)
        self.whole = math.lcm(self.multiple, *self.strides.values())
        """Sides of which every map is whole."""
        self.window = _window(self.model)
        """Side in pixels of a Swin's window at its last stage; 0 for other networks."""
        self.channels_last = str(getattr(self.model, "output_fmt", None) or "NCHW").endswith("NHWC")

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        maps = self.model(x)[-len(self.names) :]
        return {
            name: found.permute(0, 3, 1, 2) if self.channels_last else found
            for name, found in zip(self.names, maps, strict=True)
        }

    def blocks(self) -> list[list[str]]:
        """Names of the parameters, block by block from input to output, as timm divides the network.

        The first block is the stem; what follows the last block, such as a final norm, belongs to it. The names are
        those of `model`.
        """
        found: dict[int, list[str]] = {}
        numbers = _block_numbers(self.name.removeprefix(TIMM))
        for name, _ in self.model.named_parameters():
            found.setdefault(numbers[_plain(name)], []).append(name)
        return [names for _, names in sorted(found.items())]

    def stage_of_blocks(self) -> list[str]:
        """The stage of each of `blocks`."""
        info: Any = self.model.feature_info
        ends, blocks = list[int](), self.blocks()
        for module in info.module_name()[-len(self.names) :]:
            inside = [k for k, names in enumerate(blocks) if any(_plain(n).startswith(_plain(module)) for n in names)]
            ends.append(max(inside, default=ends[-1] if ends else 0))
        last = len(self.names) - 1
        return [self.names[next((s for s, end in enumerate(ends) if end >= k), last)] for k in range(len(blocks))]


def _plain(name: str) -> str:
    """A parameter's name, the same in a network and in its feature model, where timm writes `_` for some dots; a
    part of a parametrized weight has the name of that weight."""
    name = re.sub(r"\.parametrizations\.(\w+)\..*", r".\1", name)
    return name.removeprefix("model.").replace("_", ".") + "."


def _load(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Load the tensors of a network into its feature model."""
    given = {_plain(name): tensor for name, tensor in state.items()}
    own = model.state_dict()
    model.load_state_dict({name: given[_plain(name)] for name in own if _plain(name) in given})


def _window(model: nn.Module) -> int:
    """Side in pixels of a Swin's window at its last stage; 0 for other networks."""
    inner: Any = getattr(model, "model", None)
    if not hasattr(inner, "set_input_size") or not hasattr(inner, "layers"):
        return 0
    info: Any = model.feature_info
    return int(max(inner.layers[-1].blocks[0].window_size) * info.reduction()[-1])


def _set_size(model: nn.Module, size: Size) -> None:
    """Bring a network with a fixed size to another one: resample its position embeddings, keep its windows."""
    inner: Any = getattr(model, "model", None)
    if not hasattr(inner, "set_input_size") or tuple(inner.patch_embed.img_size) == size:
        return
    windows = {"window_size": inner.layers[0].blocks[0].window_size} if hasattr(inner, "layers") else {}
    inner.set_input_size(img_size=size, **windows)


@functools.cache
def meta_model(short: str) -> Any:
    """The whole network, without values."""
    import timm

    with torch.device("meta"):
        return timm.create_model(short)


@functools.cache
def _block_numbers(short: str) -> dict[str, int]:
    """The number of each parameter's block, by plain name; what has none belongs to the last block."""
    from timm.models import group_parameters

    model = meta_model(short)
    if not hasattr(model, "group_matcher"):
        return {_plain(name): 0 for name, _ in model.named_parameters()}
    numbers: dict[str, int] = group_parameters(model, model.group_matcher(coarse=False), reverse=True)
    last = max(number for name, number in numbers.items() if not name.startswith(AFTER_BLOCKS))
    return {_plain(name): min(number, last) for name, number in numbers.items()}


def _plain_vit_depth(short: str) -> int | None:
    """The number of blocks of a network whose maps all have one stride; None for one with stages."""
    model = meta_model(short)
    info = getattr(model, "feature_info", None)
    if not isinstance(info, list) or not hasattr(model, "forward_intermediates"):
        return None
    return len(info) if len({level["reduction"] for level in info}) == 1 and len(info) >= LEVELS else None


def _is_swin(short: str) -> bool:
    return short.startswith("swin") and hasattr(meta_model(short), "set_input_size")


def check_free_size(name: str) -> None:
    """Check that a network takes images of any height and width, by running it without weights and values at two sizes.

    Raises:
        UsageError: it does not.
    """
    if name.startswith(TIMM) and (why := _why_not_free(name)):
        raise UsageError(
            f"{name} can't take images of any height and width, as a segmenter does: {why}",
            "use another backbone, such as a ViT or a ConvNeXt",
        )


def _why_not_free(name: str) -> str | None:
    """Why a network does not take images of any size with whole maps; None if it does."""
    with torch.device("meta"), torch.inference_mode():
        stages = TimmStages(name, dilated=True).eval()
        for rows, columns in ((5, 3), (4, 7)):
            height, width = rows * stages.whole, columns * stages.whole
            try:
                maps = stages(torch.empty(1, 3, height, width))
            except (AssertionError, RuntimeError, ValueError) as error:
                return one_line(error, 160).rstrip(".")
            for stage, stride in stages.strides.items():
                if maps[stage].shape[2:] != (height // stride, width // stride):
                    return f"its maps have other strides than timm says, {stride} for {stage}"
    return None


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


def check_name(name: str) -> str:
    """timm's own name of a model, `timm:<name>`.

    Raises:
        UsageError: timm is not installed, or has no such model.
    """
    try:
        import timm
    except ImportError:
        raise UsageError("timm backbones need the package timm", install_command("timm")) from None
    short = name.removeprefix(TIMM)
    if not timm.is_model(short):
        close = ", ".join(timm.list_models(f"*{short.split('_')[0]}*")[:5])
        raise UsageError(f"timm has no model {short!r}", f"it has {close or 'others: see timm.list_models()'}")
    return short


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


def check_size(name: str, side: int) -> None:
    """Check that the model takes images of a size, by running it without weights and values.

    Args:
        name: `timm:<name>`.
        side: height and width of the images in pixels.

    Raises:
        UsageError: it does not, or as `create`.
    """
    refused, multiple = f"{name} takes no images of {side} x {side} pixels", multiple_of(name)
    if side % multiple:
        good = max(1, round(side / multiple)) * multiple
        raise UsageError(
            f"{refused}: its patches have {multiple} x {multiple}",
            f"use a multiple of {multiple}: --set data.size={good} --set data.resize={good}, or more for data.resize",
        )
    with torch.device("meta"), torch.inference_mode():
        try:
            TimmStages(name, size=(side, side)).eval()(torch.empty(1, 3, side, side))
        except (AssertionError, RuntimeError, ValueError) as error:
            own = model_size(name)
            raise UsageError(
                f"{refused}: {one_line(error, 160).rstrip('.')}",
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
