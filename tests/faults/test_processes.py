"""A run that is killed and resumed to the bit, parts of a batch, and clipping."""

import json
import signal
import subprocess
import time

import pytest
import torch

from csg_train.training.command import train
from csg_train.training.run_folder import Run
from tests.helpers.cli import CSG, csg

pytestmark = pytest.mark.slow

SMALL = ["data.count=120", "data.size=32", "data.resize=32", "optim.batch=8", "optim.epochs=2", "precision=fp32"]
SETTINGS = [word for setting in (*SMALL, "data.real=[]") for word in ("--set", setting)]


def test_killed_at_any_moment_and_resumed_the_weights_are_the_same_to_the_bit(weights, tmp_path):
    command = ("train", "cls", "--set", "methods.csg.weight=0.2", *SETTINGS)
    whole, killed = Run(tmp_path / "whole"), Run(tmp_path / "killed")
    assert csg(*command, "--out", whole.path).returncode == 0
    process = subprocess.Popen([*CSG, *command, "--out", str(killed.path)], stderr=subprocess.DEVNULL)
    while not list((killed.path / "checkpoints").glob("step-*.safetensors")):
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.3)  # some steps beyond the checkpoint, which are lost
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not killed.finished
    resume = csg("train", "cls", "--resume", "--out", killed.path)
    assert resume.returncode == 0, resume.stderr
    assert "resumed after step 15 of 30" in resume.stderr
    one, other = whole.student(), killed.student()
    assert all(torch.equal(one[name], other[name]) for name in one)
    steps = [[json.loads(line)["step"] for line in run.metrics.read_text().splitlines()] for run in (whole, killed)]
    assert steps[0] == steps[1]


def test_accumulated_parts_are_the_whole_batch(small_recipe, weights, tmp_path):
    runs = [Run(tmp_path / str(parts)) for parts in (1, 3)]
    for parts, run in zip((1, 3), runs, strict=True):
        train(small_recipe(data__real=[], optim__max_steps=3, optim__accumulate=parts), run)
    one, other = (run.student() for run in runs)
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, rtol=1e-3, atol=1e-4)


def test_clipping_bounds_the_step(small_recipe, weights, tmp_path):
    run = Run(tmp_path / "run")
    train(small_recipe(data__real=[], optim__max_steps=1, optim__clip=1e-9, optim__weight_decay=0), run)
    still = Run(tmp_path / "still")
    train(small_recipe(data__real=[], optim__max_steps=1), still)
    before = train_start(small_recipe)
    assert all(torch.allclose(run.student()[name], tensor, atol=1e-9) for name, tensor in before.items())
    assert not all(torch.allclose(still.student()[name], tensor, atol=1e-9) for name, tensor in before.items())
    assert json.loads(run.metrics.read_text().splitlines()[0])["gradient_norm"] > 1e-3


def train_start(small_recipe):
    from csg_train.training.command import build_method

    return build_method(small_recipe(), 10, torch.device("cpu")).student.state_dict()
