"""Settings of recipes and methods by options: one way, and one line if a setting is wrong."""

import pytest

from csg.errors import UsageError
from csg_train.recipe import load_recipe, merge_settings, parse_settings
from tests.helpers.cli import csg, refused


def test_method_settings_go_to_the_chosen_method():
    recipe = load_recipe("digits", {"method.weight": 0.3, "method": "l2"})
    assert (recipe.method, recipe.methods["l2"]["weight"]) == ("l2", 0.3)
    assert load_recipe("digits", {"method.temperature": 0.2}).methods["csg"]["temperature"] == 0.2


def test_set_and_method_say_the_same(monkeypatch):
    """`--set method.x`, `--set methods.csg.x` and `--method csg:x` give the same recipe."""
    from csg_train.training import command

    recipes = []

    def record(recipe, run, trackers, profile):
        recipes.append(recipe)
        raise UsageError("not trained", "the recipe is enough here")

    monkeypatch.setattr(command, "train", record)
    for words in (
        ("--method", "csg:temperature=0.2"),
        ("--method", "csg", "--set", "method.temperature=0.2"),
        ("--set", "methods.csg.temperature=0.2"),
    ):
        refused(csg("train", "cls", *words), 2, "not trained")
    assert recipes[0].methods["csg"]["temperature"] == 0.2
    assert recipes[0] == recipes[1] == recipes[2]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--set", "method.temprature=0.2"), "temprature.*did you mean temperature?"),
        (("--method", "csg:temprature=0.2"), "temprature.*did you mean temperature?"),
        (("--method", "cgs"), "no method 'cgs'.*csg"),
        (("--method", "csg:queue=64:queue=32"), "setting queue is given twice"),
        (("--set", "optm.batch=3"), "no setting optm.*did you mean optim"),
        (("--set", "seeds=3"), "no setting seeds; did you mean seed?"),
        (("--set", "method.temperature=hot"), "temperature.*valid number"),
        (("--set", "optim.lr_heads=.inf"), r"optim\.lr_heads.*finite"),
        (("--seed", "1", "--set", "seed=2"), "setting seed is given twice"),
        (("--set", "seed"), "name=value"),
        (("--set", "data.train=[a"), "not valid YAML"),
        (("--set", "version=3"), "format version 3"),
        (("--method", "none", "--set", "method.weight=1"), "method none: weight"),
        (("--set", "lr=1"), r"did you mean optim\.lr_heads or optim\.lr_backbone\?"),
        (("--set", "optim.learning_rate=1"), r"did you mean optim\.lr_heads or optim\.lr_backbone\?"),
        (("--set", "batch=3"), r"did you mean optim\.batch\?"),
        (("--set", "num-workers=2"), r"did you mean data\.workers\?"),
        (("--set", "tau=1"), r"did you mean methods\.csg\.temperature\?"),
        (("--set", "method.tau=1"), r"did you mean temperature\?"),
        (("--method", "l2:lambda=2"), r"did you mean weight\?"),
        (("--method", "CSG"), r"did you mean csg\?"),
        (("--backbone", "ResNet-50"), r"did you mean resnet50\?"),
        (("--recipe", "visda"), r"did you mean visda17\?"),
    ],
)
def test_a_wrong_setting_is_one_line(tmp_path, words, message):
    refused(csg("train", "cls", *words, cwd=tmp_path), 2, message)
    assert not list(tmp_path.iterdir())


def test_a_comparison_asks_which_method_a_setting_is_for(tmp_path):
    done = csg("compare", "cls", "--set", "method.weight=1", cwd=tmp_path)
    refused(done, 2, r"method\.weight does not say which.*methods\.NAME\.weight")


def test_settings_are_read_as_yaml_and_given_once():
    assert parse_settings(["a.b=[1, x]", "c=null", "d=1e-3"]) == {"a.b": [1, "x"], "c": None, "d": "1e-3"}
    assert load_recipe("digits", parse_settings(["optim.lr_heads=1e-3"])).optim.lr_heads == 0.001
    assert merge_settings({"a": 1}, {"b": 2}) == {"a": 1, "b": 2}
