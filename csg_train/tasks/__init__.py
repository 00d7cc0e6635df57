"""What differs between classification and segmentation, in the same words; the trainer knows nothing else of a task."""

from __future__ import annotations

from csg_train.tasks import classification, segmentation
from csg_train.tasks.base import Images, Measured, Predict, Prediction, Task, predicting

TASKS: dict[str, Task] = {"cls": classification, "seg": segmentation}

__all__ = ["TASKS", "Images", "Measured", "Predict", "Prediction", "Task", "predicting"]
