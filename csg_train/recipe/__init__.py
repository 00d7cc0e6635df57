"""Recipes: every setting of a run, from a YAML file, options and `--set`; loaded without torch."""

from csg_train.recipe.load import load_recipe, parse_recipe, recipe_names
from csg_train.recipe.schema import (
    ClassificationAugment,
    ClassificationData,
    ClassificationModel,
    ClassificationRecipe,
    Optim,
    Recipe,
    SegmentationAugment,
    SegmentationData,
    SegmentationModel,
    SegmentationRecipe,
)
from csg_train.recipe.settings import apply_settings, merge_settings, parse_settings

__all__ = [
    "ClassificationAugment",
    "ClassificationData",
    "ClassificationModel",
    "ClassificationRecipe",
    "Optim",
    "Recipe",
    "SegmentationAugment",
    "SegmentationData",
    "SegmentationModel",
    "SegmentationRecipe",
    "apply_settings",
    "load_recipe",
    "merge_settings",
    "parse_recipe",
    "parse_settings",
    "recipe_names",
]
