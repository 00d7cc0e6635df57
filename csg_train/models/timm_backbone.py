"""Any timm model as a backbone, `timm:<name>`, through timm's feature interface; needs `pip install 'csg[timm]'`.

Its last four feature maps are layer1 to layer4; if it has fewer, the last is still layer4.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from csg.card import Channels
from csg.errors import InputError, UsageError, one_line

PREFIX = "timm:"
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
        raise UsageError("timm backbones need the package timm", "pip install 'csg[timm]'") from None
    short = name.removeprefix(PREFIX)
    if not timm.is_model(short):
        close = ", ".join(timm.list_models(f"*{short.split('_')[0]}*")[:5])
        raise UsageError(f"timm has no model {short!r}", f"it has {close or 'others: see timm.list_models()'}")
    file = {"pretrained_cfg_overlay": {"file": str(weights)}} if weights else {}
    try:
        model: nn.Module = timm.create_model(short, features_only=True, pretrained=pretrained, **file)
    except (RuntimeError, AttributeError) as error:
        if not pretrained:
            raise UsageError(f"timm's {short} has no feature maps: {one_line(error)}", "use another backbone") from None
        raise InputError(
            f"no pretrained weights for {name}: {one_line(error, 160)}", "give them with --set model.weights=FILE"
        ) from None
    except Exception as error:  # timm does not catch what its hub client raises
        raise InputError(
            f"no pretrained weights for {name}: {one_line(error, 160)}", "give them with --set model.weights=FILE"
        ) from None
    return model


def normalisation(name: str) -> tuple[Channels, Channels]:
    """Mean and standard deviation of the channels, in 0..1, that the model was trained with."""
    import timm

    config = timm.get_pretrained_cfg(name.removeprefix(PREFIX))
    return tuple(config.mean), tuple(config.std)
