"""`csg train --profile N`: a table and a trace of some steps, and the same weights."""

import gzip
import json

import pytest
import torch

from csg_train.training.profiling import WAIT, fitting
from csg_train.training.run_folder import Run
from tests.helpers.cli import csg
from tests.helpers.small_runs import noisy_images, settings, stopped_run, tiny_recipe


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return noisy_images(tmp_path_factory.mktemp("profile") / "data")


@pytest.fixture(scope="module")
def plain(data):
    run = Run(data.parent / "plain")
    assert csg("train", "cls", "--data", data, *settings(), "--out", run.path).returncode == 0
    return run


def profile_of(run, steps):
    """The table of a profile, after checking both files."""
    table = (run.path / "profile" / "table.txt").read_text()
    assert table.startswith(f"{steps} steps\n")
    events = json.loads(gzip.decompress((run.path / "profile" / "trace.json.gz").read_bytes()))["traceEvents"]
    waits = [event for event in events if event.get("name") == WAIT and event.get("cat") == "user_annotation"]
    assert len(waits) == steps
    return table


def same(one, other):
    return all(torch.equal(value, other.student()[name]) for name, value in one.student().items())


@pytest.mark.slow
def test_a_profile_longer_than_the_training_has_the_steps_there_are_and_changes_no_weight(data, plain, tmp_path):
    run = Run(tmp_path / "run")
    done = csg("train", "cls", "--data", data, *settings(), "--out", run.path, "--profile", 100)
    assert done.returncode == 0, done.stderr
    assert f"profile of 5 steps in {run.path}/profile" in done.stderr
    assert "convolution" in profile_of(run, 5)
    assert same(plain, run)


@pytest.mark.slow
def test_a_resumed_run_profiles_the_steps_that_are_left(data, plain, tmp_path):
    run = stopped_run(tmp_path / "run", tiny_recipe(data), step=5)
    assert csg("train", "cls", "--resume", "--out", run.path, "--profile", 4).returncode == 0
    profile_of(run, 1)
    assert same(plain, run)


@pytest.mark.parametrize(
    ("wanted", "left", "expected"),
    [(20, 100, (5, 20)), (20, 22, (2, 20)), (20, 8, (1, 7)), (1, 1, (0, 1)), (1, 2, (1, 1)), (100, 105, (5, 100))],
)
def test_warm_up_and_profile_fit_into_what_is_left(wanted, left, expected):
    assert fitting(wanted, left) == expected
