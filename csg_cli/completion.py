"""What a shell completes; every list is read where it is kept, when it is needed, and without torch.

Each function takes what has been typed, and returns the values that begin with it. A shell shows nothing of what goes
wrong: there is nothing to complete then.
"""

from __future__ import annotations

import io
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import redirect_stderr, suppress
from functools import wraps
from pathlib import Path
from typing import get_args

import typer

from csg_cli.bash_words import complete_in_bash

VARIABLE = "_CSG_COMPLETE"
"""The variable by which a shell asks: `complete_bash` and so on."""
RUNS, BUNDLES = "runs/*/*/recipe.yaml", "bundles/*/card.json"


def answer_shell(app: Callable[[], None]) -> None:
    """Answer the question of a shell, with nothing on standard error, which is the user's terminal.

    Args:
        app: the command line, which reads the question.
    """
    with redirect_stderr(io.StringIO()), suppress(Exception):
        if os.environ[VARIABLE] == "complete_bash":
            complete_in_bash(app)
        else:
            app()
    sys.exit()


def _completing(
    values: Callable[[typer.Context, str], Iterable[str]],
) -> Callable[[typer.Context, str], list[str]]:
    """A completion: the values that begin with what has been typed."""

    @wraps(values)
    def complete(ctx: typer.Context, incomplete: str) -> list[str]:
        try:
            return [one for one in values(ctx, incomplete) if one.startswith(incomplete)]
        except Exception:  # of a foreign package, an unreadable folder: a traceback helps nobody here
            return []

    return complete


@_completing
def methods(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """The methods, those of other packages included; after a colon, their settings."""
    from csg_train.methods import METHODS

    given, colon, _ = incomplete.rpartition(":")
    if not colon:
        return METHODS
    from csg_train.methods.settings import settings_class

    return [f"{given}:{setting}=" for setting in settings_class(given.partition(":")[0]).model_fields]


@_completing
def recipes(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """The recipes that come with csg."""
    from csg_train.recipe import recipe_names

    return recipe_names()


@_completing
def settings(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """The settings that `--set` takes: of the recipe, and of csg's own methods; after the equals sign, their values."""
    from csg_train.methods.settings import SETTINGS
    from csg_train.recipe.catalogue import RECIPES, method_catalogue, recipe_settings

    tasks = [task for task in RECIPES if task == ctx.info_name] or list(RECIPES)
    method = str(ctx.params.get("method") or "csg").partition(":")[0]
    found: dict[str, tuple[str, ...]] = {}
    for task in tasks:
        found |= {one.name: one.choices for one in recipe_settings(task)}
        if method in SETTINGS:
            found |= {f"method.{one.name.split('.')[2]}": one.choices for one in method_catalogue(method, task)}
        if incomplete.startswith("methods."):
            found |= {one.name: one.choices for name in SETTINGS for one in method_catalogue(name, task)}
    name, equals, _ = incomplete.partition("=")
    return [f"{name}={choice}" for choice in found[name]] if equals else [f"{name}=" for name in found]


@_completing
def config_words(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """What `csg config` takes: its commands, groups of settings, methods, and settings."""
    from csg_train.methods import METHODS
    from csg_train.recipe.catalogue import RECIPES, recipe_settings

    names = [one.name for task in RECIPES for one in recipe_settings(task)]
    groups = [name.partition(".")[0] for name in names]
    return dict.fromkeys(["show", "diff", *groups, *(METHODS if incomplete else ()), *(names if incomplete else ())])


@_completing
def backbones(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """The backbones of torchvision."""
    from csg_train.models.names import BACKBONE_NAMES

    return BACKBONE_NAMES


@_completing
def training_precisions(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """The precisions of a training."""
    from csg_train.recipe import Recipe

    return get_args(Recipe.model_fields["precision"].annotation)


@_completing
def precisions(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """The precisions of `csg export`."""
    return ("fp32", "fp16", "bf16", "int8")


@_completing
def trackers(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """The trackers of a run, those of other packages included."""
    from csg_train.training.trackers import TRACKERS

    return TRACKERS


@_completing
def label_sets(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """The label sets that come with csg."""
    from csg.datasets.label_sets import label_set_names

    return label_set_names()


@_completing
def runs(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """The folders of runs below runs/; for other places the shell completes folders."""
    return _folders(RUNS)


@_completing
def bundles(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """The bundles below bundles/; for other places the shell completes folders."""
    return _folders(BUNDLES)


@_completing
def runs_and_recipes(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """What `csg config diff` compares."""
    from csg_train.recipe import recipe_names

    return [*recipe_names(), *_folders(RUNS)]


@_completing
def runs_and_inspect(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """What may follow `csg export`."""
    return ["inspect", *_folders(RUNS)]


@_completing
def executors(ctx: typer.Context, incomplete: str) -> Iterable[str]:
    """Where the runs of a comparison can be trained."""
    from csg_train.compare.executors import EXECUTORS

    return EXECUTORS


def _folders(marks: str) -> Iterator[str]:
    return (str(mark.parent) for mark in sorted(Path().glob(marks)))
