"""Output stride 8 for segmentation: layer3 and layer4 keep the resolution of layer2, with dilated convolutions.

docs/method.md section 7. The weights stay valid: at every fourth position of layer4 (every second of layer3) the map
equals that of the network with strides.
"""

from __future__ import annotations

from torch import nn


def dilate(stages: nn.ModuleDict) -> None:
    """Remove the strides of layer3 and layer4, in place.

    Each removed stride doubles the dilation of the convolutions after it. The formerly strided convolution keeps the
    dilation of those before it; 1 x 1 shortcuts only lose their stride.
    """
    rate = 1
    for name in ("layer3", "layer4"):
        for conv in (m for m in stages[name].modules() if isinstance(m, nn.Conv2d)):
            strided, conv.stride = conv.stride != (1, 1), (1, 1)
            if conv.kernel_size == (1, 1):
                continue
            conv.dilation = (rate, rate)
            conv.padding = (rate * (conv.kernel_size[0] // 2), rate * (conv.kernel_size[1] // 2))
            rate *= 2 if strided else 1
