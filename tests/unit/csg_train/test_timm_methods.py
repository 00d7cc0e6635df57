"""Methods with a teacher train small networks of timm; low-rank changes reach the student by every rule."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from csg.errors import UsageError
from csg_train.models.weights import load_weights
from csg_train.tasks import TASKS
from csg_train.training.command import train
from csg_train.training.run_folder import Run
from csg_train.training.student import load_student
from tests.helpers.cli import csg
from tests.helpers.small_runs import noisy_images, tiny_recipe

timm = pytest.importorskip("timm")

NETWORKS = ("test_vit", "test_resnet", "test_convnext", "test_efficientnet")
METHODS = {
    "csg": "test_vit",
    "feature-l2": "test_efficientnet",
    "l2": "test_efficientnet",
    "asg": "test_efficientnet",
    "ewc": "test_resnet",
    "miro": "test_vit",
}
"""A network that trains in each quick test."""
OF_ALL_STAGES = ("csg", "miro")
"""Methods that take maps of any stage; the slow tests train all networks with these."""
WITHOUT_CLASSIFIER = [("asg", "test_vit"), ("ewc", "test_vit")]
LORA = {"model__training": "lora", "optim__optimizer": "adamw", "optim__lr_heads": 1e-2}
HELD_OUT = {"data__holdout": 0.34, "evaluate_every": 1}
RULES = {
    "average": {"optim__average": 0.7},
    "wise": {"optim__wise": 0.0},
    "last": {"optim__swad": 1.3} | HELD_OUT,
    "synthetic": {"checkpoint": "synthetic"} | HELD_OUT,
}
"""Ways to choose the student; SWAD takes the last weights where the loss has not risen again."""
IMAGES = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="module")
def made(tmp_path_factory):
    """A folder with images, and a file of random weights for each network."""
    folder = tmp_path_factory.mktemp("timm")
    noisy_images(folder / "images")
    torch.manual_seed(0)
    for name in NETWORKS:
        save_file(timm.create_model(name).state_dict(), folder / f"{name}.safetensors")
    return folder


def recipe_of(made, network, **changes):
    """A recipe of three steps."""
    weights = str(made / f"{network}.safetensors")
    named = {"model__backbone": f"timm:{network}", "model__weights": weights, "optim__steps": 3}
    return tiny_recipe(made / "images", **named | changes)


@pytest.mark.parametrize(
    ("method", "network"),
    [
        *METHODS.items(),
        *(
            pytest.param(method, name, marks=pytest.mark.slow)
            for method in OF_ALL_STAGES
            for name in NETWORKS
            if name != METHODS[method]
        ),
    ],
)
def test_a_method_with_a_teacher_trains_a_network_of_timm(made, tmp_path, method, network):
    run = Run(tmp_path / "run")
    few = {"methods__ewc__images": 4} if method == "ewc" else {}
    train(recipe_of(made, network, method=method, **few), run)
    assert run.result().steps == 3
    assert load_student(run)(IMAGES).isfinite().all()


@pytest.mark.parametrize(("method", "network"), WITHOUT_CLASSIFIER)
def test_a_method_that_needs_a_classifier_is_refused_before_the_first_step(made, tmp_path, method, network):
    run = Run(tmp_path / "run")
    with pytest.raises(UsageError, match="no ImageNet classifier"):
        train(recipe_of(made, network, method=method), run)
    assert not run.metrics.exists()


@pytest.mark.parametrize(
    "rule", [rule if rule == "wise" else pytest.param(rule, marks=pytest.mark.slow) for rule in RULES]
)
def test_low_rank_changes_are_in_the_weights_that_are_chosen(made, tmp_path, rule):
    recipe, run = recipe_of(made, "test_vit", **LORA, **RULES[rule]), Run(tmp_path / "run")
    train(recipe, run)
    pretrained = load_weights(recipe.model.backbone, Path(recipe.model.weights))
    start, end = TASKS["cls"].student(recipe, 2, pretrained).state_dict(), run.student()
    assert run.result().student.rule == rule
    assert end.keys() == start.keys()
    moved = {name for name in end if name.startswith("encoder") and not torch.equal(end[name], start[name])}
    assert len(moved) == (0 if rule == "wise" else 24)  # four linear layers in each of six blocks
    assert load_student(run)(IMAGES).isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_a_vit_with_low_rank_changes_is_exported(made, tmp_path, precision):
    run = Run(tmp_path / "run")
    train(recipe_of(made, "test_vit", **LORA), run)
    done = csg("export", run.path, "--precision", precision, "--out", tmp_path / "bundle")
    assert done.returncode == 0, done.stderr
