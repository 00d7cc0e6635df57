"""`csg config`: the list of settings, a resolved recipe, the differences of two, and the JSON Schema."""

import json
import os
import subprocess
import sys
from importlib import resources

import jsonschema
import pytest
import yaml

from csg_train.methods import METHODS
from csg_train.methods.settings import settings_class
from csg_train.recipe import load_recipe, recipe_names
from csg_train.recipe.catalogue import RECIPES, all_settings, task_settings
from csg_train.recipe.json_schema import recipe_schema
from tests.helpers.cli import CSG, csg, refused
from tests.helpers.pages import blocks

SHIPPED = {name: (resources.files("csg_train.recipe") / f"{name}.yaml").read_text() for name in recipe_names()}


def leaves(tree, prefix=""):
    for name, value in tree.items():
        yield from leaves(value, f"{prefix}{name}.") if isinstance(value, dict) else [prefix + name]


def test_every_setting_is_listed_with_a_sentence():
    listed = {line.split()[0] for line in csg("config").stdout.splitlines()}
    resolved = [name for recipe in SHIPPED for name in leaves(load_recipe(recipe).model_dump(exclude={"methods"}))]
    of_methods = [f"methods.{method}.{name}" for method in METHODS for name in settings_class(method).model_fields]
    assert listed == {*resolved, *of_methods}
    for setting in all_settings():
        assert setting.description.endswith((".", ")")), setting.name
        assert setting.type, setting.name


def test_defaults_are_those_of_the_task():
    for task in RECIPES:
        defaults = {setting.name: setting.default for setting in task_settings(task)}
        assert defaults["methods.csg.weight"] == {"cls": 0.1, "seg": 75}[task]
    (line,) = csg("config", "magnitude").stdout.splitlines()
    assert line.startswith("augment.magnitude (cls) = 6  integer, 0 to 30  Magnitude")
    assert "integer, 8 to 2048, pixels" in csg("config", "data.resize").stdout


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("lr", ["optim.lr_backbone", "optim.lr_heads"]),
        ("tau", ["methods.simclr.temperature", "methods.moco-v2.temperature", "methods.csg.temperature"]),
        ("Feature-L2", ["methods.feature-l2.weight", "methods.feature-l2.channels"]),
        ("bs", ["optim.batch"]),
        ("leading", []),
    ],
)
def test_a_word_finds_settings(word, names):
    done = csg("config", word, "--json")
    if names:
        assert [setting["name"] for setting in json.loads(done.stdout)["settings"]] == names
    else:
        refused(done, 2, "no setting has leading")


def test_a_setting_is_one_line_in_a_pipe_and_wrapped_on_a_terminal():
    settings = len(csg("config", "optim").stdout.splitlines())
    assert settings == len([setting for setting in all_settings() if setting.name.startswith("optim.")])
    code = "from csg.console import stdout; from csg_cli import main; stdout._force_terminal = True; main()"
    shown = subprocess.run(
        [sys.executable, "-c", code, "config", "optim"],
        capture_output=True,
        text=True,
        env=os.environ | {"COLUMNS": "80", "TERM": "dumb", "NO_COLOR": "1"},
    )
    widths = [len(line.rstrip()) for line in shown.stdout.splitlines()]
    assert len(widths) > 2 * settings
    assert max(widths) <= 80


@pytest.mark.parametrize("recipe", SHIPPED)
def test_shipped_recipes_fit_the_schema(recipe):
    schema = json.loads(csg("config", "--schema").stdout)
    jsonschema.Draft202012Validator.check_schema(schema)
    checked = jsonschema.Draft202012Validator(schema)
    for tree in (yaml.safe_load(SHIPPED[recipe]), load_recipe(recipe).model_dump(mode="json")):
        checked.validate(tree)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optm": {"batch": 3}}, "'optm' was unexpected"),
        ({"optim": {"batch": 0}}, "0 is less than the minimum of 1"),
        ({"method": "cgs"}, "'cgs' is not one of"),
        ({"methods": {"csg": {"tau": 1}}}, "'tau' was unexpected"),
        ({"methods": {"drpc": {}}}, "'styles' is a required property"),
        ({"model": {"backbone": "vgg"}}, "'vgg' does not match"),
        ({"augment": {"flip": True}}, "'flip' was unexpected"),
        ({"task": "det"}, "'det' is not one of"),
    ],
)
def test_the_schema_names_what_is_wrong(changes, message):
    errors = jsonschema.Draft202012Validator(recipe_schema()).iter_errors(yaml.safe_load(SHIPPED["pacs"]) | changes)
    assert any(message in error.message for error in errors)


def test_the_recipe_of_the_how_to_fits_the_schema():
    (recipe,) = blocks("how-to/recipe.md", "yaml")
    jsonschema.Draft202012Validator(recipe_schema()).validate(yaml.safe_load(recipe))


@pytest.mark.parametrize("recipe", SHIPPED)
def test_a_shown_recipe_is_that_recipe(recipe, tmp_path):
    shown = csg("config", "show", "--recipe", recipe, "--set", "optim.batch=24").stdout
    (tmp_path / "shown.yaml").write_text(shown)
    assert load_recipe(str(tmp_path / "shown.yaml")) == load_recipe(recipe, {"optim.batch": 24})
    assert "  batch: 24  # default: 32" in shown


def test_show_names_what_differs_from_the_default():
    words = ("--recipe", "gta5", "--method", "csg:temperature=0.2", "--data", "a b", "--set", "model.weights=none")
    shown = json.loads(csg("config", "show", *words, "--json").stdout)
    assert shown["recipe"]["data"]["train"] == ["a b"]
    assert shown["recipe"]["data"]["real"] == [], "those of the recipe belong to its own training images"
    changed = shown["defaults_of_changed"]
    assert (changed["methods.csg.temperature"], changed["model.weights"]) == (0.07, None)
    assert "methods.csg.weight" not in changed, "75 is the default of segmentation"
    assert "  weights: none  # default: null" in csg("config", "show", *words).stdout
    refused(csg("config", "show", "--recipe", "nothing"), 2, "no recipe 'nothing'")


def test_diff_lists_what_differs_between_recipes_and_runs(trained, tmp_path):
    done = csg("config", "diff", "digits", "pacs", "--json")
    found = json.loads(done.stdout)["differences"]
    assert found["optim.batch"] == {"first": 64, "second": 32}
    assert found["methods.si.weight"] == {"first": 100.0}
    assert "optim.momentum" not in found
    assert "optim.batch" in csg("config", "diff", "digits", "pacs").stdout
    same = csg("config", "diff", trained.path, trained.path / "recipe.yaml")
    assert (same.returncode, same.stdout) == (0, "")
    assert "the same settings" in same.stderr
    refused(csg("config", "diff", "digits", tmp_path), 3, "recipe.yaml")
    refused(csg("config", "diff", "digits", "nothing"), 2, "no recipe 'nothing'")


def test_schema_and_a_word_exclude_each_other():
    refused(csg("config", "lr", "--schema"), 2, "leave out the word")


def test_the_list_needs_no_torch():
    code = "import sys; sys.modules['torch'] = None; from csg_cli import main; main()"
    for words in (["config", "lr"], ["config", "--schema"]):
        assert subprocess.run([sys.executable, "-c", code, *words], capture_output=True).returncode == 0
    done = subprocess.run([sys.executable, "-c", code, "config", "show"], capture_output=True, text=True)
    refused(done, 2, r"csg config needs the module torch.*\[train\]")


def test_grep_finds_settings_in_the_list():
    listed = subprocess.run([*CSG, "config"], stdout=subprocess.PIPE)
    found = subprocess.run(["grep", "-c", "temperature"], input=listed.stdout, capture_output=True)
    assert found.stdout.strip() == b"3"
