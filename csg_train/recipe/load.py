"""Recipes by name or file, changed by settings, checked."""

from __future__ import annotations

from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field, TypeAdapter, ValidationError

from csg.did_you_mean import closest, use_one_of
from csg.errors import InputError, UsageError, one_line
from csg.parsing import parse_yaml, read_yaml
from csg_train.methods.spec import METHOD_SYNONYMS
from csg_train.recipe.schema import VERSION, ClassificationRecipe, Recipe, SegmentationRecipe
from csg_train.recipe.settings import apply_settings
from csg_train.recipe.upgrade import upgraded

SYNONYMS = {
    **dict.fromkeys(("lr", "learning_rate", "base_lr", "lr_head", "head_lr", "init_lr"), "optim.lr_heads"),
    **dict.fromkeys(("backbone_lr", "lr_encoder"), "optim.lr_backbone"),
    **dict.fromkeys(("batch_size", "batchsize", "bs", "train_batch_size"), "optim.batch"),
    **dict.fromkeys(("num_epochs", "n_epochs", "max_epochs", "epoch"), "optim.epochs"),
    **dict.fromkeys(("iterations", "iters", "max_iter", "max_iters", "num_steps", "total_steps"), "optim.steps"),
    **dict.fromkeys(("wd", "l2_reg"), "optim.weight_decay"),
    **dict.fromkeys(("grad_clip", "clip_grad", "clip_norm", "max_grad_norm"), "optim.clip"),
    **dict.fromkeys(("grad_accum", "accumulation", "gradient_accumulation_steps"), "optim.accumulate"),
    **dict.fromkeys(("num_workers", "n_workers", "nworkers", "threads"), "data.workers"),
    **dict.fromkeys(("image_size", "img_size", "imgsz", "input_size"), "data.size"),
    **dict.fromkeys(("crop_size",), "data.crop"),
    **dict.fromkeys(("source", "synthetic", "train_data", "root"), "data.train"),
    **dict.fromkeys(("target", "val", "test", "val_data", "real_data"), "data.real"),
    **dict.fromkeys(("arch", "encoder", "network", "net"), "model.backbone"),
    **dict.fromkeys(("pretrained", "checkpoint", "init_weights"), "model.weights"),
    **dict.fromkeys(("amp", "mixed_precision", "fp16", "bf16", "half", "dtype"), "precision"),
    **dict.fromkeys(("random_seed", "manual_seed", "rng"), "seed"),
}
"""Settings by the words that other programs have for them."""
NO_SETTINGS: Mapping[str, Any] = {}
_RECIPES: TypeAdapter[Recipe] = TypeAdapter(
    Annotated[ClassificationRecipe | SegmentationRecipe, Field(discriminator="task")]
)


def recipe_names() -> list[str]:
    """The names of the recipes that come with csg, in alphabetical order."""
    files = resources.files("csg_train.recipe").iterdir()
    return sorted(f.name.removesuffix(".yaml") for f in files if f.name.endswith(".yaml"))


def load_recipe(source: str, settings: Mapping[str, Any] = NO_SETTINGS) -> Recipe:
    """A recipe by name or file, with settings changed.

    Args:
        source: one of `recipe_names()`, or a YAML file.
        settings: values by dotted name; `method.x` is setting x of the recipe's method (`csg_train.recipe.settings`).

    Raises:
        UsageError: there is no such recipe or setting, or a setting has an invalid value.
        InputError: the file is not a recipe.

    Example:
        >>> load_recipe("digits", {"optim.epochs": 2, "method.temperature": 0.2}).methods["csg"]["temperature"]
        0.2
    """
    tree = _read(source)
    apply_settings(tree, settings)
    return parse_recipe(tree, f"recipe {source}")


def parse_recipe(tree: Any, where: str) -> Recipe:
    """A recipe from its tree of settings.

    Args:
        tree: what the YAML or JSON text holds.
        where: the origin of the tree, for the error.

    Raises:
        UsageError: names the first setting that is unknown or has an invalid value.
    """
    if isinstance(tree, dict) and isinstance(version := tree.get("version"), int) and version > VERSION:
        raise UsageError(f"{where} has format version {version}, this csg reads {VERSION}", "update csg")
    try:
        return _RECIPES.validate_python(upgraded(tree))
    except ValidationError as error:
        wrong = _setting_error(error)
    except UsageError as error:
        wrong = error
    raise UsageError(f"{where}: {wrong.message}", wrong.hint) from None


def _setting_error(error: ValidationError) -> UsageError:
    """The first error of a validation: the setting's name, what is wrong, and the closest name if it is unknown."""
    first = error.errors()[0]
    name = one_line(".".join(str(part) for part in first["loc"] if part not in ("cls", "seg")), 100)
    if first["type"] == "extra_forbidden":
        near = _closest_setting(name)
        hint = f"did you mean {near}?" if near else "the run's recipe.yaml lists all settings"
        return UsageError(f"there is no setting {name}", hint)
    message = first["msg"].removeprefix("Value error, ")
    return UsageError(f"{name}: {message}" if name else message, "correct the recipe, the option or --set")


def _closest_setting(name: str) -> str | None:
    """The setting that may be meant: one whose last part is this, has another name elsewhere, or is written alike."""
    names, last = setting_names(), name.rpartition(".")[2]
    lasts = {known.rpartition(".")[2]: known for known in reversed(names)}
    groups = {known.partition(".")[0]: known.partition(".")[0] for known in names}
    if last in lasts:
        return lasts[last]
    words = SYNONYMS | {word: f"method.{known}" for word, known in METHOD_SYNONYMS.items()}
    if meant := words.get(last.lower().replace("-", "_")):
        return meant
    near = closest(name, [*names, *groups]) or closest(last, lasts)
    return lasts.get(near, near) if near else None


def setting_names() -> list[str]:
    """The dotted names of all settings, of either task; those of methods excluded."""
    names = dict.fromkeys(name for recipe in (ClassificationRecipe, SegmentationRecipe) for name in _names(recipe))
    return list(names)


def _names(record: type[BaseModel], prefix: str = "") -> list[str]:
    names = []
    for name, field in record.model_fields.items():
        kind = field.annotation
        if isinstance(kind, type) and issubclass(kind, BaseModel):
            names += _names(kind, f"{prefix}{name}.")
        else:
            names.append(prefix + name)
    return names


def _read(source: str) -> dict[str, Any]:
    if source in recipe_names():
        tree = parse_yaml((resources.files("csg_train.recipe") / f"{source}.yaml").read_bytes())
    elif Path(source).is_file():
        tree = read_yaml(Path(source), f"recipe {source}")
    else:
        raise UsageError(f"there is no recipe {source!r}", use_one_of(source, recipe_names(), ", or a YAML file"))
    if not isinstance(tree, dict):
        raise InputError(f"recipe {source} contains no settings", "start from one of csg's own recipes")
    return tree
