"""NaN and infinity never become a result, and a diverged run is not told to go on."""

import json
from unittest import mock

import numpy as np
import pytest
import torch

from csg.errors import InputError
from csg_train.energy import hyperspherical_energy
from csg_train.tasks import Prediction
from csg_train.training.finite import non_finite
from csg_train.training.metrics_log import MetricsLine
from csg_train.training.run_folder import Run, newest_run
from csg_train.training.trainer import Trainer
from tests.helpers.cli import csg, refused
from tests.helpers.small_runs import noisy_images, settings

WEIGHT, BUFFER = "head.0.weight", "encoder.stages.layer1.0.1.running_var"


@pytest.fixture
def data(tmp_path):
    return noisy_images(tmp_path / "data")


def spoiled(name, at, value=float("nan")):
    """The trainer, which makes a number of the student NaN in a step."""
    one_step = Trainer._one_step

    def spoil(self, batch):
        values = one_step(self, batch)
        if self.step == at:
            self.method.student.state_dict()[name].view(-1)[0] = value
        return values

    return mock.patch.object(Trainer, "_one_step", spoil)


@pytest.mark.parametrize("at", [2, 6])
@pytest.mark.parametrize("name", [WEIGHT, BUFFER])
@pytest.mark.parametrize("real", [True, False])
def test_a_student_that_is_not_finite_is_not_written(data, at, name, real):
    more = ["--real-data", data] if real else []
    with spoiled(name, at):
        done = csg("train", "cls", *settings(optim__steps=6), "--data", data, *more, "--out", "r", "--json")
    refused(done, 3, "diverged: at step . weights are not finite; lower the learning rates")
    run = Run(data.parent / "r")
    assert run.diverged
    assert not (run.path / "student.safetensors").exists()
    assert not run.finished


@pytest.mark.parametrize("every", [0, 2])
def test_a_student_whose_answers_are_not_finite_has_diverged(data, every):
    with spoiled(WEIGHT, 4, value=3e38):
        more = settings(optim__steps=6, evaluate_every=every, optim__lr_heads=1e-9)
        done = csg("train", "cls", *more, "--data", data, "--real-data", data, "--out", "r", "--json")
    refused(done, 3, "diverged: at step . (weights|the network's answers) are not finite; lower the learning rates")
    assert Run(data.parent / "r").diverged


def test_a_run_that_diverges_by_its_rates_stops(data):
    rates = settings(optim__lr_backbone=1e30, optim__lr_heads=1e30, optim__steps=30)
    refused(csg("train", "cls", *rates, "--data", data, "--out", "r"), 3, "diverged")
    for line in Run(data.parent / "r").metrics.read_text().splitlines():
        json.loads(line, parse_constant=lambda word: pytest.fail(f"{word} is no JSON"))


def test_a_diverged_run_is_not_resumed_and_not_chosen(data):
    with spoiled(WEIGHT, 2):
        csg("train", "cls", *settings(), "--data", data, "--out", "runs/cls/r")
    for command in (["train", "cls", "--resume", "--out"], ["export"], ["embed"]):
        refused(csg(*command, "runs/cls/r"), 3, "diverged.*start a new run with lower learning rates")
    with pytest.raises(InputError, match="no unfinished run"):
        newest_run(data.parent / "runs", unfinished=True)
    refused(csg("train", "cls", "--resume"), 3, "no unfinished run")


def test_a_student_of_an_older_version_that_is_not_finite_is_refused(data):
    csg("train", "cls", *settings(optim__steps=1), "--data", data, "--out", "r")
    run = Run(data.parent / "r")
    state = run.student()
    state[BUFFER][0] = float("inf")
    run.write_student(state)
    refused(csg("embed", "r", "--data", data), 3, "layer1.*holds NaN or infinity")


def test_predictions_that_are_not_finite_are_an_error():
    Prediction(torch.zeros(2, 3)).check("photos")
    for bad in (Prediction(torch.tensor([[1.0, torch.nan]])), Prediction(torch.zeros(1, 2), torch.tensor([torch.inf]))):
        with pytest.raises(InputError, match="NaN or infinity for images of photos"):
            bad.check("photos")


def test_only_floating_tensors_can_be_not_finite():
    tensors = {"a": torch.tensor(1), "b": torch.tensor([1.0, torch.inf]), "c": torch.ones(2, dtype=torch.bfloat16)}
    assert non_finite(tensors) == ["b"]
    assert non_finite({}) == []


@pytest.mark.parametrize("embeddings", [np.full((3, 4), np.nan), np.array([[1, np.inf], [0, 1]]), np.ones((1, 4))])
def test_an_energy_is_finite_or_none(embeddings):
    assert hyperspherical_energy(embeddings) is None


def test_metrics_are_json_and_older_ones_with_nan_are_read():
    assert MetricsLine(3, {"loss": None}).to_json() == '{"step": 3, "loss": null}'
    assert MetricsLine.from_json('{"step": 3, "loss": NaN, "x": -Infinity}') == MetricsLine(
        3, {"loss": None, "x": None}
    )
    for line in ('{"step": 1e400}', "[" * 100_000, "null", "3", '{"step": "x"}', '{"step": 1'):
        assert MetricsLine.from_json(line) is None


def test_a_run_that_is_not_there_or_not_finished_is_named_with_its_task(data, tmp_path):
    refused(csg("export", "nothere"), 3, "there is no folder nothere")
    (tmp_path / "empty").mkdir()
    refused(csg("export", "empty"), 3, "empty is not a run")
    (tmp_path / "r").mkdir()
    csg("train", "cls", *settings(), "--data", data, "--out", "whole")
    (tmp_path / "r" / "recipe.yaml").write_bytes((tmp_path / "whole" / "recipe.yaml").read_bytes())
    refused(csg("export", "r"), 3, "not finished; finish it with `csg train cls --resume --out r`")
