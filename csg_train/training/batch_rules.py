"""Which batches a training can have: equal shares for all processes, more than one image where batch norm trains."""

from __future__ import annotations

from csg.errors import UsageError
from csg_train.distributed import world_size
from csg_train.methods.base import Method
from csg_train.models.batch_norm import batch_norms
from csg_train.recipe import Optim, SegmentationModel
from csg_train.recipe.schema import ClassificationModel


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


def check_parts(method: Method, model: ClassificationModel, accumulate: int, batch: int) -> None:
    """Refuse parts of one image where batch norm trains: it can't normalise by a single one.

    Args:
        method: with its student.
        model: settings of the student.
        accumulate: parts in which each process works through its share of a batch.
        batch: images in a step, over all processes.

    Raises:
        UsageError: names the setting to change.
    """
    share = batch // world_size()
    if share // min(accumulate, share) > 1 or not _trains_batch_norm(method):
        return
    if share > 1:
        larger = f"--set optim.accumulate={share // 2}"
    else:
        larger = f"--set optim.batch={2 * world_size()}, with at least as many training images"
    frozen = " or --set model.freeze_batch_norm=true" if not model.freeze_batch_norm else ""
    if isinstance(model, SegmentationModel) and model.head == "aspp":
        frozen = f" or --set model.head=deeplabv2{frozen.replace(' or', ' with')}"
    parts = f"optim.accumulate={accumulate} leaves parts" if share > 1 else f"optim.batch={batch} leaves batches"
    where = f" in each of {world_size()} processes" if world_size() > 1 else ""
    raise UsageError(f"{parts} of one image{where}, and batch norm can't train on one", f"use {larger}{frozen}")


def _trains_batch_norm(method: Method) -> bool:
    """Whether a batch norm normalises by the batch when the method trains; leaves every module in its mode."""
    modes = [(module, module.training) for module in method.modules()]
    method.train()
    trains = any(norm.training for norm in batch_norms(method))
    for module, mode in modes:
        module.training = mode
    return trains
