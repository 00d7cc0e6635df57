"""Runs as processes: killed and resumed to the bit, and two of them doing the work of one."""

import json
import signal
import subprocess
import sys
import time

import pytest
import torch

from csg_train.training.command import train
from csg_train.training.run_folder import Run

pytestmark = pytest.mark.slow

SMALL = ["data.count=120", "data.size=32", "data.resize=32", "optim.batch=8", "optim.epochs=2", "precision=fp32"]
SETTINGS = [word for setting in SMALL for word in ("--set", setting)]
CSG = [sys.executable, "-m", "csg"]


@pytest.mark.parametrize("method", ["csg", "si"])
def test_killed_at_any_moment_and_resumed_the_weights_are_the_same_to_the_bit(weights, tmp_path, method):
    command = [*CSG, "train", "cls", "--method", method, "--set", f"methods.{method}.weight=0.2", *SETTINGS]
    whole, killed = Run(tmp_path / "whole"), Run(tmp_path / "killed")
    subprocess.run([*command, "--out", str(whole.path)], check=True, capture_output=True)
    process = subprocess.Popen([*command, "--out", str(killed.path)], stderr=subprocess.DEVNULL)
    while not list((killed.path / "checkpoints").glob("step-*.safetensors")):
        assert process.poll() is None
        time.sleep(0.02)
    time.sleep(0.3)  # some steps beyond the checkpoint, which are lost
    process.send_signal(signal.SIGKILL)
    assert process.wait() == -signal.SIGKILL
    assert not killed.finished
    resume = subprocess.run(
        [*CSG, "train", "cls", "--resume", "--out", str(killed.path)], capture_output=True, text=True
    )
    assert resume.returncode == 0, resume.stderr
    assert "resumed after step 15 of 30" in resume.stderr
    one, other = whole.student(), killed.student()
    assert all(torch.equal(one[name], other[name]) for name in one)
    steps = [[json.loads(line)["step"] for line in run.metrics.read_text().splitlines()] for run in (whole, killed)]
    assert steps[0] == steps[1]


@pytest.mark.parametrize("method", ["csg"])
def test_two_processes_are_one_with_the_doubled_batch(weights, tmp_path, method):
    settings = [*SETTINGS, "--set", "model.freeze_batch_norm=true", "--set", "optim.max_steps=3", "--method", method]
    settings += ["--set", "optim.lr_backbone=0.001", "--set", "optim.lr_heads=0.01"]
    one, two = Run(tmp_path / "one"), Run(tmp_path / "two")
    subprocess.run([*CSG, "train", "cls", *settings, "--out", str(one.path)], check=True, capture_output=True)
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    done = subprocess.run(
        [*torchrun, "-m", "csg", "train", "cls", *settings, "--out", str(two.path), "--json"],
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 3, "one result, not two"
    first, second = (json.loads(run.metrics.read_text().splitlines()[0]) for run in (one, two))
    assert first.keys() == second.keys()
    for name in first:
        if name.startswith(("loss", "positive")):
            assert second[name] == pytest.approx(first[name], rel=1e-3, abs=1e-4), name
    for name, tensor in one.student().items():
        torch.testing.assert_close(two.student()[name], tensor, rtol=1e-3, atol=1e-4)


def test_accumulated_parts_are_the_whole_batch(small_recipe, weights, tmp_path):
    runs = [Run(tmp_path / str(parts)) for parts in (1, 3)]
    for parts, run in zip((1, 3), runs, strict=True):
        train(small_recipe(optim__max_steps=3, optim__accumulate=parts), run)
    one, other = (run.student() for run in runs)
    for name, tensor in one.items():
        torch.testing.assert_close(other[name], tensor, rtol=1e-3, atol=1e-4)


def test_clipping_bounds_the_step(small_recipe, weights, tmp_path):
    run = Run(tmp_path / "run")
    train(small_recipe(optim__max_steps=1, optim__clip=1e-9, optim__weight_decay=0), run)
    still = Run(tmp_path / "still")
    train(small_recipe(optim__max_steps=1), still)
    before = train_start(small_recipe)
    assert all(torch.allclose(run.student()[name], tensor, atol=1e-9) for name, tensor in before.items())
    assert not all(torch.allclose(still.student()[name], tensor, atol=1e-9) for name, tensor in before.items())
    assert json.loads(run.metrics.read_text().splitlines()[0])["gradient_norm"] > 1e-3


def train_start(small_recipe):
    from csg_train.training.command import build_method

    return build_method(small_recipe(), 10, torch.device("cpu")).student.state_dict()
