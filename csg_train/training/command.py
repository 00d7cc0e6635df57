"""`csg train cls` and `csg train seg`: from recipe and data to a finished run folder."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from csg.console import log, print_json
from csg.datasets.check import check_dataset
from csg.errors import UsageError
from csg.files import absolute, check_utf8
from csg.locks import locked, new_folder
from csg_train.distributed import broadcast_object, main_process_first, process_group, rank, said_once, world_size
from csg_train.methods import load_method
from csg_train.methods.base import Method
from csg_train.models.lora import add_lora
from csg_train.models.teacher import Teacher
from csg_train.models.weights import load_weights
from csg_train.recipe import Recipe, load_recipe
from csg_train.recipe.settings import with_images_of_its_own
from csg_train.tasks import TASKS
from csg_train.training.environment import current_environment, training_device
from csg_train.training.memory import keep_freed_memory
from csg_train.training.optimizer import precision_for
from csg_train.training.run_data import RunImages, check_images, check_weights, moved, read_images, require_sources
from csg_train.training.run_files import ENVIRONMENT, RECIPE, RUNS
from csg_train.training.run_folder import Run, newest_run
from csg_train.training.run_result import RunResult
from csg_train.training.tensor_files import tensors_digest
from csg_train.training.trackers import check_trackers
from csg_train.training.trackers.tracking import Trackers, tracking
from csg_train.training.trainer import Trainer
from csg_train.training.waiting import advice


@dataclass(frozen=True, kw_only=True)
class TrainRequest:
    """A run to start or to resume."""

    task: str
    """cls or seg."""
    recipe: str | None = None
    """Name or file of the recipe; None: that of the task's embedded dataset."""
    settings: Mapping[str, Any] = field(default_factory=dict)
    """Settings that differ from the recipe's, by dotted name (`csg_train.recipe.settings`)."""
    out: Path | None = None
    """The run folder; None: a new one in runs/, or the newest unfinished one to resume."""
    resume: bool = False
    """Continue an unfinished run."""
    trackers: tuple[str, ...] = ()
    """Trackers besides TensorBoard (`csg_train.training.trackers`); a resumed run keeps its own."""
    profile: int = 0
    """Steps to profile (`csg_train.training.profiling`)."""


def train_command(request: TrainRequest, as_json: bool) -> None:
    """Start or resume a run, and print the result."""
    keep_freed_memory()
    with process_group():
        result = _result(request)
        if rank() == 0:
            _print_result(result, as_json)


def start_or_resume(request: TrainRequest) -> Run:
    """Start or resume a run, and return it when it is finished.

    Raises:
        CsgError: as `train`; or there is nothing to resume.
    """
    with process_group():
        result = _result(request)
        if rank() == 0:
            _print_result(result, as_json=False)
    return Run(Path(result.run))


def _result(request: TrainRequest) -> RunResult:
    with said_once():
        check_trackers(request.trackers)
    if request.resume:
        return _resume(request)
    with said_once():
        recipe = with_absolute_paths(load_task_recipe(request.task, request.recipe, request.settings))
    with ExitStack() as stack:
        folder = new_folder(request.out, RUNS / recipe.task, f"{recipe.name}-{recipe.method}")
        run = Run(broadcast_object(stack.enter_context, folder))
        chosen = [f"recipe {recipe.name}" + ("" if request.recipe else " (default)"), f"method {recipe.method}"]
        chosen += [f"backbone {recipe.model.backbone}", f"seed {recipe.seed}", f"run {run.path}"]
        log(f"train {request.task}: " + ", ".join(chosen))
        return train(recipe, run, request.trackers, profile=request.profile)


def _resume(request: TrainRequest) -> RunResult:
    run = Run(broadcast_object(_run_to_resume, request))
    with said_once():
        recipe = with_absolute_paths(moved(run, request.settings)) if request.settings else run.recipe()
    with ExitStack() as stack:
        broadcast_object(stack.enter_context, locked(run.path))
        if run.finished:
            log(f"run {run.path} is already finished")
            return run.result()
        broadcast_object(_check_resumable, run, recipe)
        log(f"resuming run {run.path}")
        return train(recipe, run, request.trackers, profile=request.profile)


def _check_resumable(run: Run, recipe: Recipe) -> None:
    run.require_not_diverged()
    run.require_current_recipe()
    require_sources(run, recipe.data.train, "training", "--data")
    require_sources(run, recipe.data.real, "real", "--real-data")


def train(recipe: Recipe, run: Run, trackers: Sequence[str] = (), *, profile: int = 0) -> RunResult:
    """Train a recipe into a run folder, from its last checkpoint if it has one.

    Args:
        recipe: all settings.
        run: the folder.
        trackers: as `TrainRequest.trackers`.
        profile: as `TrainRequest.profile`.

    Raises:
        UsageError: a setting does not fit the data, the method or the number of processes.
        InputError: the data cannot be read, or are not those that the run was started with; a tracker can't be opened;
            or the training diverged.
        Stopped: by Ctrl-C or SIGTERM; the run can be resumed.
    """
    device = training_device()
    broadcast_object(_check_processes, run)
    with main_process_first():  # it fills the caches that the others read
        weights = pretrained_weights(recipe)
        images = read_images(recipe)
        method = build_method(recipe, len(images.training.class_spec), device, weights)
    broadcast_object(_check_datasets, recipe, images)
    precision = precision_for(run.environment().precision if run.recorded else recipe.precision, device)
    with said_once():
        trainer = Trainer(
            run=run,
            recipe=recipe,
            method=method,
            images=images,
            device=device,
            precision=broadcast_object(lambda: precision),
            profile=profile,
        )
    with tracking(run, recipe, trackers) as opened:
        broadcast_object(_record_start, trainer, weights, opened)
        _say_what_starts(trainer)
        result = trainer.train(opened)
    if rank() == 0 and (line := advice(recipe, result.waiting_for_data or 0)):
        log(line)
    return result


def _say_what_starts(trainer: Trainer) -> None:
    recipe, images = trainer.recipe, trainer.images
    log(
        f"{len(images.training)} synthetic images of {len(images.training.class_spec)} classes, "
        f"{trainer.steps} steps of {trainer.batch}, {trainer.precision.name} on {trainer.device.type}"
    )
    warm_up = recipe.optim.warm_up
    if warm_up >= trainer.steps:
        log(
            f"warning: the warm-up takes {warm_up} steps and the training ends after {trainer.steps}: rates never "
            "reach the recipe's; lower optim.warm_up"
        )


def _check_processes(run: Run) -> None:
    """Refuse to resume with another number of processes: shares of batches, and so the weights, would be others."""
    if run.recorded and (recorded := run.environment().processes) != world_size():
        raise UsageError(
            f"run {run.path} was started with {recorded} processes, and can't be resumed with {world_size()}",
            f"continue with `{run.resume_command}`",
        )


def _check_datasets(recipe: Recipe, datasets: RunImages) -> None:
    for images in (datasets.training, datasets.held_out, datasets.real):
        if images:
            check_dataset(images, recipe.data.on_unreadable, "--set data.on_unreadable=skip")


def pretrained_weights(recipe: Recipe) -> dict[str, Tensor]:
    """The ImageNet weights of the recipe's backbone; empty for random ones.

    Raises:
        UsageError: the method needs a pretrained teacher, and the recipe's weights are `none`.
        InputError: the file is missing, or belongs to another model.
    """
    weights = recipe.model.weights
    if weights != "none":
        return load_weights(recipe.model.backbone, Path(weights) if weights else None)
    if load_method(recipe.method).needs_teacher:
        raise UsageError(
            f"method {recipe.method} needs a pretrained teacher, and model.weights=none makes it a random one",
            "leave out model.weights, or use --method none",
        )
    return {}


def build_method(
    recipe: Recipe, classes: int, device: torch.device, weights: dict[str, Tensor] | None = None
) -> Method:
    """Student, teacher and method with their initial weights, which depend on the recipe's seed.

    Args:
        recipe: of the run.
        classes: of the student.
        device: to train on.
        weights: what `pretrained_weights` returns for the recipe; None: they are loaded.

    Raises:
        UsageError, InputError: as `pretrained_weights`.
    """
    state = (pretrained_weights(recipe) if weights is None else weights) or None
    kind = load_method(recipe.method)
    torch.manual_seed(recipe.seed)
    student = TASKS[recipe.task].student(recipe, classes, state)
    if recipe.model.training == "lora":
        add_lora(student.encoder, recipe.model.lora_rank)
    elif recipe.model.training == "frozen":
        student.encoder.freeze()
    teacher = None
    if kind.needs_teacher and state is not None:
        dilated, size = recipe.task == "seg", recipe.fixed_size()
        teacher = Teacher(recipe.model.backbone, state, dilated, size).to(device)
    method = kind(student, teacher, kind.Settings(**recipe.methods[recipe.method]))
    return method.to(device)


def load_task_recipe(task: str, source: str | None, settings: Mapping[str, Any]) -> Recipe:
    """The recipe `source`, by default that of the task's embedded dataset, with settings changed.

    Raises:
        UsageError: it is a recipe of the other task, or as csg_train.recipe.load_recipe.
    """
    recipe = load_recipe(source or TASKS[task].embedded, with_images_of_its_own(settings))
    if recipe.task != task:
        raise UsageError(f"recipe {recipe.name} is for `csg train {recipe.task}`", "name another with --recipe")
    return recipe


def _run_to_resume(request: TrainRequest) -> Path:
    if request.recipe:
        raise UsageError("--resume continues with the run's own recipe", "leave out --recipe")
    path = request.out or newest_run(RUNS, request.task, unfinished=True)
    if (task := Run(path).recipe().task) != request.task:
        raise UsageError(f"run {path} belongs to `csg train {task}`", "resume it with that command")
    return path


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """The recipe with absolute paths, so that the run can be resumed from any folder.

    Raises:
        InputError: a path is not UTF-8, so that no recipe can hold it.
    """

    def all_absolute(sources: tuple[str, ...]) -> tuple[str, ...]:
        embedded = TASKS[recipe.task].embedded
        return tuple(s if s == embedded else str(absolute(Path(s))) for s in sources)

    data, model = recipe.data, recipe.model
    changes: dict[str, Any] = {"train": all_absolute(data.train), "real": all_absolute(data.real)}
    for name in ("labels", "real_labels"):
        if (labels := getattr(data, name, None)) and Path(labels).is_file():
            changes[name] = str(absolute(Path(labels)))
    if model.weights and model.weights != "none":
        model = model.model_copy(update={"weights": str(absolute(Path(model.weights)))})
    for path in (*changes["train"], *changes["real"], changes.get("labels"), changes.get("real_labels"), model.weights):
        check_utf8(path or "")
    return recipe.model_copy(update={"data": data.model_copy(update=changes), "model": model})


def _record_start(trainer: Trainer, weights: dict[str, Tensor], trackers: Trackers) -> None:
    """Write what the run is started with; a resumed run must have the images and weights that it was started with."""
    run, recipe, images = trainer.run, trainer.recipe, trainer.images
    fingerprint = tensors_digest(weights, {}) if weights else None
    if run.recorded:
        check_images(run, images)
        check_weights(run, fingerprint)
        if run.started and run.recipe() != recipe:
            run.write(RECIPE, recipe.to_yaml())
        trackers.keep()
        return
    run.write(RECIPE, recipe.to_yaml())
    environment = current_environment(
        recipe,
        images.training,
        images.real,
        weights=fingerprint,
        precision=trainer.precision.name,
        device=trainer.device,
    )
    run.write_record(ENVIRONMENT, environment)
    trackers.keep()


def _print_result(result: RunResult, as_json: bool) -> None:
    if as_json:
        print_json(result.model_dump(mode="json"))
    else:
        pictures = Run(Path(result.run)).pictures
        where = f", pictures in {pictures}" if pictures.is_dir() else ""
        waited = f", {result.waiting_for_data:.0%} of the time waiting for data" if result.waiting_for_data else ""
        log(f"run {result.run}: {result.steps} steps, {result.images_per_s:.0f} images/s{waited}{where}")
