"""A finished run to its bare student: teacher, projection heads and queues stay behind."""

from __future__ import annotations

from csg.errors import InputError
from csg_train.methods.base import Student
from csg_train.tasks import TASKS
from csg_train.training.run_folder import STUDENT, Run


def load_student(run: Run) -> Student:
    """The trained student of a finished run, float32, in eval mode.

    Raises:
        InputError: the run is not finished, or its checkpoint is broken or another model's.
    """
    run.result()
    recipe, classes = run.recipe(), run.class_spec()
    student: Student = TASKS[recipe.task].student(recipe, len(classes), None)
    try:
        student.load_state_dict(run.student())
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise InputError(
            f"{run.path / STUDENT} is no checkpoint of a {recipe.model.backbone} with {len(classes)} classes: {reason}",
            "export the run that it belongs to",
        ) from None
    return student.eval()
