"""Output stride 8 for segmentation: layer3 and layer4 keep layer2's resolution, their convolutions are dilated instead.

Source: docs/method.md section 7. The weights stay valid: at every fourth position of layer4 (every second of layer3)
the map equals that of the network with strides.
"""

from __future__ import annotations

from torch import nn


def dilate(stages: nn.ModuleDict) -> None:
    """Take the strides out of layer3 and layer4, in place.

    A convolution behind a stride that was taken out reaches twice as far; the strided one itself, first in its stage,
    reaches as far as those before it did. 1 x 1 shortcuts only lose their stride.
    """
    reach = 1
    for name in ("layer3", "layer4"):
        for conv in (m for m in stages[name].modules() if isinstance(m, nn.Conv2d)):
            strided, conv.stride = conv.stride != (1, 1), (1, 1)
            if conv.kernel_size == (1, 1):
                continue
            conv.dilation = (reach, reach)
            conv.padding = (reach * (conv.kernel_size[0] // 2), reach * (conv.kernel_size[1] // 2))
            reach *= 2 if strided else 1
