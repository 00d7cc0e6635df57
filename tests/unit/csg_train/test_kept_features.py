"""What frozen networks give for an image is computed once, and the training is the same, bit for bit."""

import json
from unittest import mock

import pytest
import torch
import torchvision

from csg_train.models.backbones import Encoder
from csg_train.training.command import train
from csg_train.training.run_folder import Run
from tests.helpers.small_runs import noisy_images, stopped_run, tiny_recipe


@pytest.fixture(scope="module")
def images(tmp_path_factory):
    return noisy_images(tmp_path_factory.mktemp("data"))


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    torch.manual_seed(0)
    file = tmp_path_factory.mktemp("weights") / "resnet18.pth"
    torch.save(torchvision.models.resnet18().state_dict(), file)
    return str(file)


def outcome(run, recipe):
    """The losses and weights of a training, and how many images went through encoders in it."""
    seen, forward = [], Encoder.forward

    def counted(self, images):
        seen.append(len(images))
        return forward(self, images)

    with mock.patch.object(Encoder, "forward", counted):
        train(recipe, run)
    lines = map(json.loads, run.metrics.read_text().splitlines())
    losses = [{name: value for name, value in line.items() if "loss" in name} for line in lines]
    return losses, run.student(), sum(seen)


@pytest.mark.parametrize(
    ("changes", "kept", "computed"),
    [
        ({"model__training": "frozen"}, 12, 32),
        ({"model__training": "frozen", "precision": "bf16", "optim__accumulate": 2, "optim__batch": 5}, 15, 40),
        ({"model__training": "lp-ft"}, 12 + 16, 16 + 16),
        pytest.param({"method": "asg", "optim__accumulate": 2}, 32 + 12, 32 + 32, marks=pytest.mark.slow),
    ],
)
def test_losses_and_weights_are_those_of_a_training_that_keeps_no_features(
    images, weights, tmp_path, changes, kept, computed
):
    shared = {
        "model__backbone": "resnet18",
        "model__weights": weights,
        "optim__steps": 8,
        "optim__warm_up": 0,
    } | changes
    runs = [
        outcome(Run(tmp_path / str(keep)), tiny_recipe(images, model__keep_features=keep, **shared))
        for keep in (True, False)
    ]
    assert [seen for _, _, seen in runs] == [kept, computed]
    assert runs[0][0] == runs[1][0]
    assert all(torch.equal(value, runs[1][1][name]) for name, value in runs[0][1].items())


@pytest.mark.parametrize("changes", [{"methods__none": {"augment": True}}, {"optim__steps": 3}])
def test_no_features_are_kept_of_augmented_images_or_for_a_single_pass(images, tmp_path, changes, capsys):
    train(tiny_recipe(images, **{"model__training": "frozen", **changes}), Run(tmp_path / "run"))
    assert "features of" not in capsys.readouterr().err


@pytest.mark.slow
def test_a_resumed_run_computes_its_features_again_and_ends_with_the_same_weights(images, tmp_path):
    recipe = tiny_recipe(images, model__training="frozen", optim__steps=12)
    whole, stopped = Run(tmp_path / "whole"), stopped_run(tmp_path / "stopped", recipe, step=5)
    train(recipe, whole)
    train(recipe, stopped)
    assert all(torch.equal(value, stopped.student()[name]) for name, value in whole.student().items())
