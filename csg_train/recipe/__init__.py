"""Recipes: every setting of a run, from a YAML file, options and `--set`; loaded without torch."""

from csg_train.recipe.augment_settings import ClassificationAugment, SegmentationAugment
from csg_train.recipe.data_settings import ClassificationData, SegmentationData
from csg_train.recipe.load import load_recipe, parse_recipe, recipe_names
from csg_train.recipe.model_settings import ClassificationModel, SegmentationModel
from csg_train.recipe.optim_settings import Optim
from csg_train.recipe.schema import ClassificationRecipe, Recipe, SegmentationRecipe
from csg_train.recipe.settings import apply_settings, merge_settings, parse_settings
from csg_train.recipe.speed_settings import Speed

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
    "Speed",
    "apply_settings",
    "load_recipe",
    "merge_settings",
    "parse_recipe",
    "parse_settings",
    "recipe_names",
]
