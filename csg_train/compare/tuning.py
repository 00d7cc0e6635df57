"""Which methods a comparison trains, with which recipes, and how each is tuned."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from csg.errors import UsageError
from csg_train.compare.results import Trial
from csg_train.methods import METHODS, load_method
from csg_train.methods.settings import settings_class
from csg_train.methods.spec import MethodSpec, parse_method
from csg_train.recipe import Recipe, SegmentationData, apply_settings, parse_recipe
from csg_train.recipe.load import brought_by_backbone, say_brought
from csg_train.tasks import TASKS
from csg_train.training.measurements import HeldOutScore

WEIGHT_FACTORS = (1.0, 0.1, 10.0)
RATE_FACTORS = (1.0, 1 / 3, 3.0)
NEW_LAYER_FACTORS = (1.0, 10.0, 100.0)
"""Factors of lr_heads where new layers alone train: they start from random values, and nothing pretrained is lost."""
AUGMENTED = {"none": "none:augment=true"}
"""Methods that are published without augmentation, and their second row in the default comparison, with it."""
TUNING_DIVISOR = 4
"""A tuning run has a quarter of the steps; learning rates that are being tuned are four times as high in it."""
HELD_OUT = 0.2
"""Share of the images that tuning is scored on, if there is one synthetic source only."""


def choose(texts: Sequence[str], base: Recipe) -> tuple[list[MethodSpec], list[MethodSpec]]:
    """The methods to compare, and those of the default that are left out because a setting without a default is unset.

    Args:
        texts: the methods as a user writes them; none: all of METHODS and AUGMENTED.
        base: the recipe that all of them share; it may contain the missing settings.

    Raises:
        UsageError: a method does not exist, has an invalid setting, or is given twice.
    """
    default = [text for name in METHODS for text in (name, AUGMENTED.get(name)) if text]
    specs = [parse_method(text) for text in texts or default]
    if len({spec.file_name for spec in specs}) < len(specs):
        raise UsageError("a method is given twice", "give each once")
    left_out = [] if texts else [spec for spec in specs if missing_settings(spec, base)]
    chosen = [spec for spec in specs if spec not in left_out]
    for spec in chosen:
        recipe_for(spec, base)  # raises before anything is trained
        say_brought(spec.changes, brought_by_backbone(base.model_dump(mode="json"), spec.changes))
    return chosen, left_out


def missing_settings(spec: MethodSpec, base: Recipe) -> list[str]:
    """Settings of the method that have neither a default nor a value."""
    given = spec.settings.keys() | base.methods.get(spec.name, {}).keys()
    fields = settings_class(spec.name).model_fields
    return [name for name, field in fields.items() if field.is_required() and name not in given]


def recipe_for(spec: MethodSpec, base: Recipe, changes: dict[str, Any] | None = None) -> Recipe:
    """The shared recipe with a method, its settings, and changes by dotted name.

    A backbone of another family than the recipe's brings the values of its family, unless the row sets them.
    """
    tree = base.model_dump(mode="json")
    tree["methods"] = {spec.name: tree["methods"].get(spec.name, {})}
    apply_settings(tree, brought_by_backbone(tree, spec.changes) | spec.changes | (changes or {}))
    return parse_recipe(tree, spec.label)


def candidates(spec: MethodSpec, base: Recipe) -> list[dict[str, Any]]:
    """The settings that tuning tries, by dotted name; the first are the method's own values.

    A row with another optimizer or another way to train the encoder than the recipe's tunes the learning rates, also
    if its method has a weight: rates suit neither a fresh LoRA nor AdamW because they suit SGD.
    """
    recipe, tuned = recipe_for(spec, base), load_method(spec.name).tuned_setting
    optim, training = recipe.optim, recipe.model.training
    if training in ("frozen", "lora"):
        return [{"optim.lr_heads": optim.lr_heads * factor} for factor in NEW_LAYER_FACTORS]
    if tuned is None or training != base.model.training or optim.optimizer != base.optim.optimizer:
        rates = {f"optim.{name}": getattr(optim, name) for name in ("lr_backbone", "lr_heads")}
        return [{name: rate * factor for name, rate in rates.items()} for factor in RATE_FACTORS]
    weight = recipe.methods[spec.name][tuned]
    return [{f"methods.{spec.name}.{tuned}": weight * factor} for factor in WEIGHT_FACTORS]


def trial_settings(recipe: Recipe, images: int, candidate: dict[str, Any]) -> dict[str, Any]:
    """All changes of the recipe for a tuning run.

    It has fewer steps. Learning rates that are being tuned are higher in it: with fewer steps alone, tuning would
    prefer rates that are too high for the whole run. A weight is tuned at the rates of the whole run: at higher ones
    every try but that with the largest weight may collapse. It is measured on synthetic images, never on real ones.

    Args:
        recipe: of the method that is tuned.
        images: number of its synthetic images.
        candidate: the settings to try, by dotted name.
    """
    optim = recipe.optim
    changes: dict[str, Any] = candidate | {
        "seed": 0,
        "evaluate_every": 0,
        "checkpoint": "last",
        "optim.swad": None,
        "optim.wise": None,
        "optim.max_steps": math.ceil(recipe.schedule(images) / TUNING_DIVISOR),
        "optim.warm_up": optim.warm_up // TUNING_DIVISOR,
    }
    changes |= {name: TUNING_DIVISOR * rate for name, rate in candidate.items() if name.startswith("optim.lr_")}
    return changes | held_out_images(recipe)


def held_out_images(base: Recipe) -> dict[str, Any]:
    """The changes of the recipe that score it on synthetic images that it does not train on, in place of real ones."""
    data = base.data
    changes: dict[str, Any] = {"data.real_labels": None} if isinstance(data, SegmentationData) else {}
    if len(data.train) > 1:
        return changes | {"data.train": data.train[:-1], "data.real": data.train[-1:], "data.holdout": 0.0}
    return changes | {"data.real": (), "data.holdout": HELD_OUT}


def best_trial(trials: Sequence[Trial]) -> Trial:
    """The best trial if it beats the first by more than the standard error of its score, otherwise the first."""
    best = max(trials, key=lambda trial: trial.held_out)
    error = HeldOutScore(best.held_out, best.images).error
    return best if best.held_out - trials[0].held_out > error else trials[0]


def tuning_rule(base: Recipe, tune: bool) -> str:
    """How the methods were tuned, in a sentence for the table."""
    if not tune:
        return "Tuning: none; all methods have the settings of the recipe."
    images = f"{HELD_OUT:.0%} of them, the same for all"
    if len(base.data.train) > 1:
        images = f"all of {Path(base.data.train[-1]).name}, the last synthetic source"
    score = next(iter(TASKS[base.task].scores.values())).removesuffix(" %")
    return (
        "Tuning: each method gets three short runs of a quarter of the steps, with its own weight times 1, 1/10 and "
        "10, or, if it has none, with four times the learning rates times 1, 1/3 and 3 "
        "(so too a method with another optimizer or model.training than the recipe; where new layers alone train, "
        "frozen and lora, lr_heads times 1, 10 and 100); "
        f"{score} on synthetic images that were not trained on ({images}) decides; the first value stays unless "
        "another is better by more than a standard error; no real image is used."
    )
