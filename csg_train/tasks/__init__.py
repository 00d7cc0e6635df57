"""Classification and segmentation: everything that differs between the two, behind one interface."""

from __future__ import annotations

from typing import Any

from csg_train.tasks.base import Images, Measurement, NotFiniteError, Predict, Prediction, Task, predicting
from csg_train.tasks.classification import Classification
from csg_train.tasks.segmentation import Segmentation

TASKS: dict[str, Task[Any, Any, Any]] = {"cls": Classification(), "seg": Segmentation()}
"""The tasks by the name that commands and recipes use."""

__all__ = ["TASKS", "Images", "Measurement", "NotFiniteError", "Predict", "Prediction", "Task", "predicting"]
