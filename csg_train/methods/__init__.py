"""The systems of the comparison (docs/method.md section 8): one line each in the registry."""

from __future__ import annotations

from csg_train.methods.asg import Asg
from csg_train.methods.base import Batch, Method, MethodSettings
from csg_train.methods.csg import Csg
from csg_train.methods.drpc import Drpc
from csg_train.methods.feature_l2 import FeatureL2
from csg_train.methods.ibn import IbnA, IbnB
from csg_train.methods.l2 import L2
from csg_train.methods.none import NoneMethod
from csg_train.methods.self_contrast import MocoV2, SimClr
from csg_train.methods.si import Si

METHODS: dict[str, type[Method]] = {
    "none": NoneMethod,
    "l2": L2,
    "si": Si,
    "feature-l2": FeatureL2,
    "asg": Asg,
    "ibn-a": IbnA,
    "ibn-b": IbnB,
    "drpc": Drpc,
    "simclr": SimClr,
    "moco-v2": MocoV2,
    "csg": Csg,
}

__all__ = ["METHODS", "Batch", "Method", "MethodSettings"]
