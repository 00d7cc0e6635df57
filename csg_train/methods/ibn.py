"""ibn-a and ibn-b (Pan et al. 2018): another backbone, the same loss (docs/method.md section 8; models/ibn.py)."""

from __future__ import annotations

from csg_train.methods.none import NoneMethod
from csg_train.methods.settings import IbnSettings


class IbnA(NoneMethod):
    """Fine-tuning of the backbone with half-instance norms in its blocks."""

    Settings = IbnSettings
    backbone_variant = "_ibn_a"


class IbnB(NoneMethod):
    """Fine-tuning of the backbone with instance norms after its first two stages."""

    Settings = IbnSettings
    backbone_variant = "_ibn_b"
