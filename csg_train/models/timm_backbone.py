"""Any timm model as a backbone, `timm:<name>`: its stages, and the sizes of images that it takes.

A network with stages gives its last four feature maps as layer1 to layer4; if it has fewer, the last is still layer4.
A plain ViT has one stride at every depth: its maps are those after a quarter, a half, three quarters and all of its
blocks (3, 6, 9 and 12 of 12), each through its final norm, as in DINOv2's dense tasks (Oquab et al. 2024, section 7.4).
Swin's final norm is applied to layer4, the map that it is made for.
"""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from csg.errors import UsageError, one_line
from csg_train.models.names import TIMM
from csg_train.models.timm_model import LEVELS, block_numbers, create, model_size, multiple_of, plain_name

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
        self.name, self.size, self.dilated = name, size, dilated
        self.model: nn.Module = create(name, any_size=size is None, dilated=dilated)
        if weights is not None:
            _load(self.model, weights)
        if size is not None:
            _set_size(self.model, size)
        _use_fast_layers(self.model)
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
        numbers = block_numbers(self.name.removeprefix(TIMM))
        for name, _ in self.model.named_parameters():
            found.setdefault(numbers[plain_name(name)], []).append(name)
        return [names for _, names in sorted(found.items())]

    def stage_of_blocks(self) -> list[str]:
        """The stage of each of `blocks`."""
        info: Any = self.model.feature_info
        ends, blocks = list[int](), self.blocks()
        for module in info.module_name()[-len(self.names) :]:
            inside = [
                k for k, names in enumerate(blocks) if any(plain_name(n).startswith(plain_name(module)) for n in names)
            ]
            ends.append(max(inside, default=ends[-1] if ends else 0))
        last = len(self.names) - 1
        return [self.names[next((s for s, end in enumerate(ends) if end >= k), last)] for k in range(len(blocks))]


def feeds_last_map(stages: TimmStages) -> bool:
    """Whether layer4 depends on every parameter of a network; in an HRNet, for one, parts make the other maps alone."""
    height, width = stages.size or (4 * stages.whole, 4 * stages.whole)
    with torch.device("meta"):
        same = TimmStages(stages.name, size=stages.size, dilated=stages.dilated)
        same(torch.empty(2, 3, height, width))["layer4"].sum().backward()
    return all(parameter.grad is not None for parameter in same.parameters() if parameter.requires_grad)


def _load(model: nn.Module, state: dict[str, Tensor]) -> None:
    """Load the tensors of a network into its feature model; UsageError if this has others."""
    given = {plain_name(name): tensor for name, tensor in state.items()}
    try:
        model.load_state_dict({name: given[plain_name(name)] for name in model.state_dict()})
    except (KeyError, RuntimeError) as error:
        what = f"timm's feature model has other weights than the network: {one_line(error, 160)}"
        raise UsageError(what, "use another backbone") from None


def _use_fast_layers(model: nn.Module) -> None:
    from csg_train.models.timm_layers import use_fast_layers_of_timm

    use_fast_layers_of_timm(model)


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
            hint = f"use its own size: --set data.size={own} --set data.resize={own}, or more for data.resize"
            why = one_line(error, 160).rstrip(".")
            raise UsageError(f"{refused}: {why}", "use another backbone" if side == own else hint) from None
