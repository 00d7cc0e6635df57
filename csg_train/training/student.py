"""The student of a finished run, without teacher, projection heads and queues."""

from __future__ import annotations

from csg.errors import InputError, one_line
from csg_train.methods.base import Student
from csg_train.tasks import TASKS
from csg_train.training.finite import non_finite
from csg_train.training.run_files import STUDENT
from csg_train.training.run_folder import Run


def load_student(run: Run) -> Student:
    """The trained student of a finished run, float32, in eval mode.

    Raises:
        InputError: the run is not finished, or its student is damaged or belongs to another model.
    """
    run.result()
    recipe, classes = run.recipe(), run.class_spec()
    student: Student = TASKS[recipe.task].student(recipe, len(classes), None)
    try:
        student.load_state_dict(run.student())
    except RuntimeError as error:
        what = f"{run.path / STUDENT} does not fit a {recipe.model.backbone} with {len(classes)} classes"
        raise InputError(f"{what}: {one_line(error, 200)}", "export the run it belongs to") from None
    if bad := non_finite(student.state_dict()):
        raise InputError(f"{run.path / STUDENT}: {bad[0]} holds NaN or infinity", "train again with lower rates")
    return student.eval()
