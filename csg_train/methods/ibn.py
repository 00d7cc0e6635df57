"""ibn-a and ibn-b (Pan et al. 2018): another backbone, no other loss (docs/method.md section 8; models/ibn.py)."""

from __future__ import annotations

from csg_train.methods.none import NoneMethod


class IbnA(NoneMethod):
    """Plain fine-tuning of the backbone with half-instance norms in its blocks."""

    backbone_variant = "_ibn_a"


class IbnB(NoneMethod):
    """Plain fine-tuning of the backbone with instance norms behind its first two stages."""

    backbone_variant = "_ibn_b"
