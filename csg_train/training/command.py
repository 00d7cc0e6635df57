"""`csg train cls` and `csg train seg`: recipe and data to a finished run folder."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import torch

from csg.console import log, print_json
from csg.errors import InputError, UsageError
from csg.files import next_free_path
from csg_train.distributed import barrier, first_process_first, process_group, rank, same_everywhere, world
from csg_train.methods import load_method
from csg_train.methods.base import Method
from csg_train.models.teacher import Teacher
from csg_train.models.weights import load_weights
from csg_train.recipe.schema import Recipe, load_recipe
from csg_train.tasks import TASKS, Images
from csg_train.training.optimizer import precision_for
from csg_train.training.run_folder import Run, environment, newest_run
from csg_train.training.trainer import Trainer

RUNS = Path("runs")


def train_command(
    task: str,
    source: str | None,
    changes: dict[str, Any],
    assignments: list[str],
    weights: str | None,
    out: Path | None,
    resume: bool,
    as_json: bool,
) -> None:
    """Train, or resume, and print the result.

    Args:
        task: cls or seg. source: recipe name or file; None: that of the task's embedded set.
        changes: settings given as options, by dotted name; those that are None were not given.
        weights: file with ImageNet weights, `none` for random ones, None for torch's cache.
    """
    with process_group():
        result = _train_or_resume(task, source, changes, assignments, weights, out, resume)
        if rank() == 0:
            _print_result(result, as_json)


def _train_or_resume(
    task: str,
    source: str | None,
    changes: dict[str, Any],
    assignments: list[str],
    weights: str | None,
    out: Path | None,
    resume: bool,
) -> dict[str, Any]:
    given = {key: value for key, value in changes.items() if value is not None}
    if resume:
        run = _run_to_resume(task, out, source, given, assignments)
        recipe = run.recipe()
        if run.finished:
            log(f"run {run.path} is finished already")
            return run.result()
        log(f"resuming run {run.path}")
    else:
        recipe = whole_paths(load_task_recipe(task, source, given, assignments))
        run = Run(same_everywhere(_new_run, recipe, out))
        chosen = [f"recipe {recipe.name}" + ("" if source else " (default)"), f"method {recipe.method}"]
        chosen += [f"backbone {recipe.model.backbone}", f"seed {recipe.seed}", f"run {run.path}"]
        log(f"train {task}: " + ", ".join(chosen))
    return train(recipe, run, weights)


def train(recipe: Recipe, run: Run, weights: str | None = None) -> dict[str, Any]:
    """Train `recipe` into the folder of `run`, from its last checkpoint if it has one."""
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    refuse_random_teacher(recipe, weights)
    with first_process_first():  # it draws and fetches what the others then find in the caches
        images, measured = _data(recipe)
        method = build_method(recipe, len(images.class_spec), weights, device)
    begun = (run.path / "environment.json").is_file()
    precision = precision_for(run.environment()["precision"] if begun else recipe.precision, device)
    trainer = Trainer(run, recipe, method, images, measured, device, same_everywhere(lambda: precision))
    if rank() == 0:
        _keep_record(run, recipe, trainer, images)
    barrier()
    log(
        f"{len(images)} synthetic images of {len(images.class_spec)} classes, "
        f"{trainer.steps} steps of {trainer.batch}, {trainer.precision.name} on {device.type}"
    )
    return trainer.train()


def build_method(recipe: Recipe, classes: int, weights: str | None, device: torch.device) -> Method:
    """Student, teacher and method with their initial weights, fixed by the recipe's seed.

    Raises:
        UsageError: the method needs a pretrained teacher, and `weights` is `none`.
    """
    refuse_random_teacher(recipe, weights)
    kind, name = load_method(recipe.method), recipe.model.backbone
    state = None if weights == "none" else load_weights(name, Path(weights) if weights else None)
    torch.manual_seed(recipe.seed)
    student = TASKS[recipe.task].student(recipe, classes, state)
    teacher = None
    if kind.needs_teacher and state is not None:
        teacher = Teacher(name, state, dilated=recipe.task == "seg").to(device)
    method = kind(student, teacher, kind.Settings(**recipe.methods[recipe.method]))
    return method.to(device)


def refuse_random_teacher(recipe: Recipe, weights: str | None) -> None:
    """Raise UsageError for a method that learns from the ImageNet network when there is none."""
    if weights == "none" and load_method(recipe.method).needs_teacher:
        raise UsageError(
            f"method {recipe.method} learns from a pretrained teacher, and --weights none gives a random one",
            "leave --weights out, or take --method none",
        )


def _data(recipe: Recipe) -> tuple[Images, Images | None]:
    """Training images and the set to measure on."""
    task = TASKS[recipe.task]
    images = task.read_synthetic(recipe)
    if recipe.data.holdout:
        order = np.random.default_rng(0).permutation(len(images))  # the same images for every system and seed
        held_out = round(recipe.data.holdout * len(images))
        return images.take(order[held_out:], images.name), images.take(order[:held_out], f"{images.name}, held out")
    real = recipe.data.real
    return images, task.read_real(recipe, images.class_spec, real, partly=False) if real else None


def load_task_recipe(task: str, source: str | None, given: dict[str, Any], assignments: list[str]) -> Recipe:
    """The recipe `source`, by default that of the task's embedded set, with changes.

    Raises:
        UsageError: it is another task's, or as csg_train.recipe.schema.load_recipe.
    """
    if "data.train" in given:  # the recipe's real set belongs to the recipe's own images
        given = {"data.real": []} | given
    recipe = load_recipe(source or TASKS[task].EMBEDDED, given, assignments)
    if recipe.task != task:
        raise UsageError(f"recipe {recipe.name} is one for `csg train {recipe.task}`", "name another with --recipe")
    return recipe


def _new_run(recipe: Recipe, out: Path | None) -> Path:
    path = out or next_free_path(RUNS / recipe.task, f"{recipe.name}-{recipe.method}")
    if path.exists() and (not path.is_dir() or any(path.iterdir())):
        raise UsageError(f"{path} exists already", "go on with it by --resume, or name another folder with --out")
    return path


def _run_to_resume(
    task: str, out: Path | None, source: str | None, given: dict[str, Any], assignments: list[str]
) -> Run:
    if source or given or assignments:
        raise UsageError(
            "--resume continues with the run's own recipe", "leave out all options but --out and --weights"
        )
    run = Run(out or newest_run(RUNS, task, unfinished=True))
    if run.recipe().task != task:
        raise UsageError(f"run {run.path} is one of `csg train {run.recipe().task}`", "resume it with that")
    return run


def whole_paths(recipe: Recipe) -> Recipe:
    """The recipe with absolute data paths, so that the run can be resumed from anywhere."""

    def whole(sources: tuple[str, ...]) -> tuple[str, ...]:
        embedded = TASKS[recipe.task].EMBEDDED
        return tuple(s if s == embedded else str(Path(s).resolve()) for s in sources)

    data = recipe.data
    changes: dict[str, Any] = {"train": whole(data.train), "real": whole(data.real)}
    for name in ("labels", "real_labels"):
        if (labels := getattr(data, name, None)) and Path(labels).is_file():
            changes[name] = str(Path(labels).resolve())
    return recipe.model_copy(update={"data": data.model_copy(update=changes)})


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
    record |= {"recipe_digest": recipe.digest(), "processes": world()}
    run.write("recipe.yaml", recipe.to_yaml())
    run.write("environment.json", json.dumps(record, indent=2) + "\n")


def _print_result(result: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print_json(result)
    else:
        log(f"run {result['run']}: {result['steps']} steps, {result['images_per_s']:.0f} images/s")
