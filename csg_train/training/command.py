"""`csg train cls` and `csg train seg`: recipe and data to a finished run folder."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from csg.console import log, print_json
from csg.errors import InputError, UsageError
from csg.files import next_free_path
from csg_train.distributed import barrier, broadcast_object, main_process_first, process_group, rank, world_size
from csg_train.methods import load_method
from csg_train.methods.base import Method
from csg_train.models.teacher import Teacher
from csg_train.models.weights import load_weights
from csg_train.recipe import Recipe, load_recipe
from csg_train.tasks import TASKS, Images
from csg_train.training.optimizer import precision_for
from csg_train.training.run_folder import Run, environment, newest_run
from csg_train.training.trainer import Trainer

RUNS = Path("runs")


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


def train_command(request: TrainRequest, as_json: bool) -> None:
    """Start or resume a run, and print the result."""
    with process_group():
        result = _train_or_resume(request)
        if rank() == 0:
            _print_result(result, as_json)


def _train_or_resume(request: TrainRequest) -> dict[str, Any]:
    if request.resume:
        run = _run_to_resume(request)
        recipe = run.recipe()
        if run.finished:
            log(f"run {run.path} is already finished")
            return run.result()
        log(f"resuming run {run.path}")
    else:
        recipe = with_absolute_paths(load_task_recipe(request.task, request.recipe, request.settings))
        run = Run(broadcast_object(_new_run, recipe, request.out))
        chosen = [f"recipe {recipe.name}" + ("" if request.recipe else " (default)"), f"method {recipe.method}"]
        chosen += [f"backbone {recipe.model.backbone}", f"seed {recipe.seed}", f"run {run.path}"]
        log(f"train {request.task}: " + ", ".join(chosen))
    return train(recipe, run)


def train(recipe: Recipe, run: Run) -> dict[str, Any]:
    """Train `recipe` into the folder of `run`, from its last checkpoint if it has one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    refuse_random_teacher(recipe)
    with main_process_first():  # it draws and fetches what the others then find in the caches
        images, measured = _data(recipe)
        method = build_method(recipe, len(images.class_spec), device)
    begun = (run.path / "environment.json").is_file()
    precision = precision_for(run.environment()["precision"] if begun else recipe.precision, device)
    trainer = Trainer(run, recipe, method, images, measured, device, broadcast_object(lambda: precision))
    if rank() == 0:
        _keep_record(run, recipe, trainer, images)
    barrier()
    log(
        f"{len(images)} synthetic images of {len(images.class_spec)} classes, "
        f"{trainer.steps} steps of {trainer.batch}, {trainer.precision.name} on {device.type}"
    )
    return trainer.train()


def build_method(recipe: Recipe, classes: int, device: torch.device) -> Method:
    """Student, teacher and method with their initial weights, fixed by the recipe's seed.

    Raises:
        UsageError: the method needs a pretrained teacher, and the recipe's weights are `none`.
    """
    refuse_random_teacher(recipe)
    kind, name, weights = load_method(recipe.method), recipe.model.backbone, recipe.model.weights
    state = None if weights == "none" else load_weights(name, Path(weights) if weights else None)
    torch.manual_seed(recipe.seed)
    student = TASKS[recipe.task].student(recipe, classes, state)
    teacher = None
    if kind.needs_teacher and state is not None:
        teacher = Teacher(name, state, dilated=recipe.task == "seg").to(device)
    method = kind(student, teacher, kind.Settings(**recipe.methods[recipe.method]))
    return method.to(device)


def refuse_random_teacher(recipe: Recipe) -> None:
    """Raise UsageError for a method that learns from the ImageNet network when there is none."""
    if recipe.model.weights == "none" and load_method(recipe.method).needs_teacher:
        raise UsageError(
            f"method {recipe.method} needs a pretrained teacher, and model.weights=none makes it a random one",
            "leave out model.weights, or use --method none",
        )


def _data(recipe: Recipe) -> tuple[Images, Images | None]:
    """Training images and the set to measure on."""
    task = TASKS[recipe.task]
    images = task.read_synthetic(recipe)
    if recipe.data.holdout:
        order = np.random.default_rng(0).permutation(len(images))  # the same images for every system and seed
        held_out = round(recipe.data.holdout * len(images))
        return images.subset(order[held_out:], images.name), images.subset(order[:held_out], f"{images.name}, held out")
    real = recipe.data.real
    return images, task.read_real(recipe, images.class_spec, real, partly=False) if real else None


def load_task_recipe(task: str, source: str | None, settings: Mapping[str, Any]) -> Recipe:
    """The recipe `source`, by default that of the task's embedded dataset, with settings changed.

    Raises:
        UsageError: it is a recipe of the other task, or as csg_train.recipe.load_recipe.
    """
    if "data.train" in settings:  # the recipe's real images belong to the recipe's own training images
        settings = {"data.real": []} | dict(settings)
    recipe = load_recipe(source or TASKS[task].EMBEDDED, settings)
    if recipe.task != task:
        raise UsageError(f"recipe {recipe.name} is for `csg train {recipe.task}`", "name another with --recipe")
    return recipe


def _new_run(recipe: Recipe, out: Path | None) -> Path:
    path = out or next_free_path(RUNS / recipe.task, f"{recipe.name}-{recipe.method}")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{path} exists already", "go on with it by --resume, or name another folder with --out")
    return path


def _run_to_resume(request: TrainRequest) -> Run:
    if request.recipe or request.settings:
        raise UsageError("--resume continues with the run's own recipe", "leave out all options but --out")
    run = Run(request.out or newest_run(RUNS, request.task, unfinished=True))
    if run.recipe().task != request.task:
        raise UsageError(f"run {run.path} is one of `csg train {run.recipe().task}`", "resume it with that command")
    return run


def with_absolute_paths(recipe: Recipe) -> Recipe:
    """The recipe with absolute paths, so that the run can be resumed from any folder."""

    def absolute(sources: tuple[str, ...]) -> tuple[str, ...]:
        embedded = TASKS[recipe.task].EMBEDDED
        return tuple(s if s == embedded else str(Path(s).resolve()) for s in sources)

    data, model = recipe.data, recipe.model
    changes: dict[str, Any] = {"train": absolute(data.train), "real": absolute(data.real)}
    for name in ("labels", "real_labels"):
        if (labels := getattr(data, name, None)) and Path(labels).is_file():
            changes[name] = str(Path(labels).resolve())
    if model.weights and model.weights != "none":
        model = model.model_copy(update={"weights": str(Path(model.weights).resolve())})
    return recipe.model_copy(update={"data": data.model_copy(update=changes), "model": model})


def _keep_record(run: Run, recipe: Recipe, trainer: Trainer, images: Images) -> None:
    """Write what the run is made with; a resumed run must find the images it was started with."""
    fingerprint = images.fingerprint()
    if (run.path / "environment.json").is_file():
        if (recorded := run.environment()["data_fingerprint"]) != fingerprint:
            raise InputError(
                f"the training images are not those that run {run.path} was started with ({recorded[:12]})",
                "restore them, or start a new run",
            )
        return
    record = environment(trainer.device, trainer.precision.name, recipe.seed, fingerprint)
    class_spec = images.class_spec
    record |= {"classes": list(class_spec.names), "label_set": class_spec.label_set, "colours": class_spec.colours}
    record |= {"recipe_digest": recipe.digest(), "processes": world_size()}
    run.write("recipe.yaml", recipe.to_yaml())
    run.write("environment.json", json.dumps(record, indent=2) + "\n")


def _print_result(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(result)
    else:
        log(f"run {result['run']}: {result['steps']} steps, {result['images_per_s']:.0f} images/s")
