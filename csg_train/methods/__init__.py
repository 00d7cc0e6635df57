"""The systems of the comparison: one file each, one line each in the registry."""

from __future__ import annotations

from csg_train.methods.base import Batch, Method, MethodSettings
from csg_train.methods.csg import Csg
from csg_train.methods.none import NoneMethod

METHODS: dict[str, type[Method]] = {
    "none": NoneMethod,
    "csg": Csg,
}

__all__ = ["METHODS", "Batch", "Method", "MethodSettings"]
