"""Which batches a training can have: equal shares for all processes, more than one image where batch norm trains."""

from __future__ import annotations

from csg.errors import UsageError
from csg_train.distributed import world_size
from csg_train.methods.base import Method
from csg_train.models.batch_norm import training_norms
from csg_train.recipe import ClassificationModel, Optim, SegmentationModel


def batch_size(optim: Optim, images: int) -> int:
    """Images in a step, over all processes: those of the recipe, but not more than there are.

    Raises:
        UsageError: they can't be divided among the processes.
    """
    batch, processes = min(optim.batch, images), world_size()
    if batch % processes == 0:
        return batch
    lower = batch // processes * processes
    nearest = [size for size in (lower, lower + processes) if 0 < size <= images]
    what = f"batches of {batch} images cannot be divided among {processes} processes"
    if not nearest:
        raise UsageError(f"{what}: there are {images} training images", "start fewer processes, or add images")
    raise UsageError(what, f"set {' or '.join(f'--set optim.batch={size}' for size in nearest)}")


def check_parts(method: Method, model: ClassificationModel | SegmentationModel, optim: Optim, batch: int) -> None:
    """Refuse parts of one image where batch norm trains: it can't normalise by a single one.

    Args:
        method: with its student.
        model: settings of the student.
        optim: settings of the training; each process works through its share of a batch in `accumulate` parts.
        batch: images in a step, over all processes.

    Raises:
        UsageError: names the setting to change.
    """
    share = batch // world_size()
    if share // min(optim.accumulate, share) > 1 or not training_norms(method):
        return
    if share > 1:
        what, change = f"optim.accumulate={optim.accumulate} leaves parts", f"--set optim.accumulate={share // 2}"
    elif optim.batch > batch:
        what, change = f"{batch} training images leave batches", "more training images"
    else:
        what, change = f"optim.batch={batch} leaves batches", f"--set optim.batch={2 * world_size()}"
    where = f" in each of {world_size()} processes" if world_size() > 1 else ""
    hint = f"use {change}, or {' '.join(_without_batch_norm(model))}"
    raise UsageError(f"{what} of one image{where}, and batch norm can't train on one", hint)


def _without_batch_norm(model: ClassificationModel | SegmentationModel) -> list[str]:
    """The options that leave no batch norm to train."""
    head = ["--set model.head=deeplabv2"] if isinstance(model, SegmentationModel) and model.head == "aspp" else []
    return head + ([] if model.freeze_batch_norm else ["--set model.freeze_batch_norm=true"])
