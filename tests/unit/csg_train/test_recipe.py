"""Recipes: loaded by name or file, changed by settings, documented, and checked before training."""

import shutil

import pytest
import torch
import yaml

from csg.card import ModelCard
from csg.datasets.label_sets import LabelSet
from csg.errors import UsageError
from csg.records import Record
from csg_train.recipe import Recipe, load_recipe, parse_recipe, parse_settings, recipe_names
from csg_train.training.run_folder import Run
from csg_train.training.student import load_student


def test_the_recipes_of_csg():
    assert recipe_names() == ["camvid", "digit-scenes", "digits", "gta5", "pacs", "visda17"]
    for name in recipe_names():
        assert load_recipe(name).name == name


def test_a_resolved_recipe_is_a_recipe(tmp_path):
    recipe = load_recipe("visda17", {"seed": 3, "optim.lr_heads": 0.5, "methods.csg.stages": ["layer4"]})
    assert (recipe.seed, recipe.optim.lr_heads, recipe.methods["csg"]["stages"]) == (3, 0.5, ["layer4"])
    assert recipe.methods["csg"]["temperature"] == 0.07
    file = tmp_path / "own.yaml"
    file.write_text(recipe.to_yaml())
    assert load_recipe(str(file)) == recipe
    assert load_recipe(str(file)).digest() == recipe.digest()


def test_visda17_and_gta5_are_the_published_runs():
    """docs/method.md sections 3, 6 and 7."""
    for name, weight, rates, batch in (("visda17", 0.1, (1e-5, 1e-4), 32), ("gta5", 75, (1e-4, 1e-3), 6)):
        recipe = load_recipe(name)
        optim, csg = recipe.optim, recipe.methods["csg"]
        assert (recipe.method, csg["weight"], csg["attention"], csg["queue"]) == ("csg", weight, "attached", 65536)
        assert (csg["temperature"], csg["momentum"], csg["stages"]) == (0.07, 0.999, ["layer3", "layer4"])
        assert (optim.lr_backbone, optim.lr_heads, optim.batch) == (*rates, batch)
        assert (optim.momentum, optim.weight_decay, optim.power, optim.warm_up) == (0.9, 5e-4, 0.9, 100)
        assert (recipe.checkpoint, optim.average, recipe.model.freeze_batch_norm) == ("last", 0, True)
    visda17, gta5 = load_recipe("visda17"), load_recipe("gta5")
    assert visda17.schedule(152_397) == 30 * (152_397 // 32)
    assert {gta5.schedule(images) for images in (12_403, 24_964)} == {100_000}
    assert (visda17.augment.operations, visda17.augment.magnitude) == (1, 6)
    assert (gta5.augment.scale, gta5.augment.flip, gta5.augment.jitter) == ((0.75, 1.25), True, 0.4)
    assert (gta5.model.head, gta5.model.align_corners, gta5.model.freeze_affine) == ("aspp", True, True)


@pytest.mark.parametrize(
    ("source", "setting", "message"),
    [
        ("nothing", "seed=1", "no recipe 'nothing'"),
        ("digits", "optim.batches=3", r"no setting optim.batches; did you mean optim.batch\?"),
        ("digits", "optim.batch=0", "recipe digits: optim.batch: "),
        ("digits", "method=magic", "no method 'magic'"),
        ("digits", "methods.csg.tau=1", "tau"),
        ("digits", "model.backbone=vgg", "no backbone 'vgg'"),
        ("digits", "batch", "not of the form"),
        ("digits", "optim.batch.x=1", "not a group of settings"),
        ("digits", "data.size=99", "larger than resize"),
    ],
)
def test_what_is_wrong_is_named(source, setting, message):
    with pytest.raises(UsageError, match=message):
        load_recipe(source, parse_settings([setting]))


@pytest.mark.parametrize("record", [*Recipe.__subclasses__(), ModelCard, LabelSet])
def test_every_field_is_documented(record):
    records, seen = [record], set()
    while records:
        record = records.pop()
        seen.add(record)
        for name, field in record.model_fields.items():
            inherited = any(base.model_fields.get(name) for base in record.__bases__ if issubclass(base, Record))
            assert field.description or inherited, f"{record.__name__}.{name}"
            kinds = (field.annotation, *getattr(field.annotation, "__args__", ()))
            records += [k for k in kinds if isinstance(k, type) and issubclass(k, Record) and k not in seen]


def test_a_recipe_of_version_1_keeps_its_meaning(tmp_path):
    old = {"version": 1, "name": "old", "task": "cls", "data": {"train": ["a"]}, "methods": {"csg": {"queue": 7}}}
    assert parse_recipe(old, "recipe").methods["csg"].items() >= {"queue": 7, "attention": "detached"}.items()
    file = tmp_path / "old.yaml"
    file.write_text(yaml.safe_dump(old))
    attached = load_recipe(str(file), {"method": "moco-v2", "method.attention": "attached"})
    assert attached.methods["moco-v2"]["attention"] == "attached"
    assert load_recipe("pacs").methods["csg"]["attention"] == "attached"
    upgraded = parse_recipe(old | {"augment": {"magnitude": 9}, "methods": {"asg": {"weight": 3.0}}}, "recipe")
    assert (upgraded.augment.magnitude, upgraded.optim.warm_up) == (27, 0)
    assert [upgraded.methods[name]["augment"] for name in ("none", "asg", "asg-l2o")] == [True] * 3
    assert upgraded.methods["asg"]["weight"] == 3
    for group in ("augment", "model", "optim", "methods"):
        with pytest.raises(UsageError, match=group):
            parse_recipe(old | {group: 3}, "recipe")
    for wrong in ({"augment": {"magnitude": "x"}}, {"methods": {"none": 3}}):
        with pytest.raises(UsageError, match=next(iter(wrong))):
            parse_recipe(old | wrong, "recipe")


@pytest.mark.parametrize("task", ["cls", "seg"])
def test_methods_of_version_1_keep_their_meaning(task):
    old = {"version": 1, "name": "old", "task": task, "data": {"train": ["a"]}}
    methods = parse_recipe(old | {"methods": {"drpc": {"styles": "b"}, "feature-l2": {"weight": 0.3}}}, "r").methods
    assert (methods["feature-l2"]["weight"], methods["feature-l2"]["channels"]) == (0.3, "mean")
    assert (methods["drpc"]["versions"], methods["drpc"]["within"]) == (1, 0)
    assert methods["si"]["anchor"] == "last"
    asg = parse_recipe(old | {"method": "asg"}, "r").methods
    assert asg["asg"]["pooled"] == (task == "cls")
    assert parse_recipe(old | {"method": "asg-l2o"}, "r").methods["asg-l2o"]["cap"] is None
    assert asg["feature-l2"]["weight"] == 0.1
    assert "drpc" not in asg


def test_a_run_of_version_1_can_be_loaded(trained, tmp_path):
    shutil.copytree(trained.path, tmp_path / "run")
    run = Run(tmp_path / "run")
    tree = yaml.safe_load((run.path / "recipe.yaml").read_text())
    added = {"model": ["align_corners"], "optim": ["warm_up", "average", "steps"], "methods": list(tree["methods"])}
    for group, names in added.items():
        tree[group] = {name: value for name, value in tree[group].items() if name not in names}
    (run.path / "recipe.yaml").write_text(yaml.safe_dump(tree | {"version": 1, "evaluate_every": 3}))
    assert run.recipe().evaluate_every == 0, "it counted epochs"
    found, expected = (load_student(r).state_dict() for r in (run, trained))
    assert all(torch.equal(found[name], expected[name]) for name in expected)
