"""The student of a finished run, without teacher, projection heads and queues."""

from __future__ import annotations

from csg.errors import InputError, one_line
from csg_train.methods.base import Student
from csg_train.tasks import TASKS
from csg_train.training.finite import non_finite
from csg_train.training.run_files import STUDENT
from csg_train.training.run_folder import Run

FINAL_NORM = "encoder.stages.model.model.norm.weight"
"""Of timm's networks that end with a norm: older versions did not apply it to maps."""


def load_student(run: Run) -> Student:
    """The trained student of a finished run, float32, in eval mode.

    Raises:
        InputError: the run is not finished, or its student is damaged or belongs to another model.
    """
    run.result()
    recipe, classes = run.recipe(), run.class_spec()
    student: Student = TASKS[recipe.task].student(recipe, len(classes), None)
    state = run.student()
    try:
        student.load_state_dict(state)
    except RuntimeError as error:
        if FINAL_NORM in student.state_dict() and FINAL_NORM not in state:
            what = f"run {run.path} was trained by an older csg, which took other maps of {recipe.model.backbone}"
            raise InputError(what, "train it again, or use it with the csg that trained it") from None
        what = f"{run.path / STUDENT} does not fit a {recipe.model.backbone} with {len(classes)} classes"
        raise InputError(f"{what}: {one_line(error, 200)}", "export the run it belongs to") from None
    if bad := non_finite(student.state_dict()):
        raise InputError(f"{run.path / STUDENT}: {bad[0]} holds NaN or infinity", "train again with lower rates")
    return student.eval()
