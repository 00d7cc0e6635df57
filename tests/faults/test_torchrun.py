"""Several processes: errors are said once, images are replaced in equal shares, and a run keeps its number of them."""

import json
import re
import subprocess
import sys

import pytest
import torch

from csg_train.training.run_folder import Run
from tests.helpers.cli import csg, refused
from tests.helpers.small_runs import noisy_images, settings
from tests.helpers.two_processes import two_processes

pytestmark = pytest.mark.slow
TORCHRUN = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "--log-dir", "log"]


@pytest.fixture(scope="module")
def both():
    """`both("train", ...)`: a csg command, run by two processes."""
    with two_processes() as run:
        yield run


def said_once(done, *patterns):
    lines = re.findall(r"^(?:error|internal error|Traceback).*$", done.stderr, re.M)
    ours = [line for line in lines if not line.startswith("Traceback")]  # torchrun's own, about a process that failed
    assert done.returncode != 0
    assert len(ours) == 1, done.stderr
    for pattern in patterns:
        assert re.search(pattern, ours[0]), ours[0]


def started(*words):
    """The same, up to the first step."""
    command = [*TORCHRUN, "-m", "csg", *map(str, words)]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    next(line for line in process.stderr if line.startswith("step 1/"))
    return process


@pytest.fixture
def data(tmp_path):
    return noisy_images(tmp_path / "data", 10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"optim__batch": 7}, r"optim\.batch=6 or --set optim\.batch=8"),
        ({"optim__batch": 2}, "one image in each of 2 processes.*--set optim.batch=4"),
        ({"model__weights": "nowhere.pth"}, "nowhere.pth does not exist"),
        ({"optim__lr_heads": "hot"}, "lr_heads"),
    ],
)
def test_what_is_wrong_in_all_processes_is_said_once(both, data, changes, message):
    said_once(both("train", "cls", *settings(**changes), "--data", data, "--out", "r"), message)


def test_missing_data_are_said_once(both):
    said_once(both("train", "cls", *settings(), "--data", "nothing", "--out", "r"), "data .*nothing does not exist")


def test_images_are_replaced_in_every_process(both, data):
    for name in ("cat/1", "cat/2", "dog/7"):
        (data / f"{name}.png").write_bytes(b"broken")
    words = settings(data__on_unreadable="skip", optim__steps=10, model__freeze_batch_norm=True)
    done = both("train", "cls", *words, "--data", data, "--out", "r", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["unreadable"] == 6, "three in each of two epochs, over both processes"


def test_an_image_that_breaks_in_one_process_ends_both_with_a_checkpoint(data):
    words = settings(optim__steps=400, data__workers=1, model__freeze_batch_norm=True)
    process = started("train", "cls", *words, "--data", data, "--out", "r")
    (data / "cat" / "3.png").write_bytes(b"broken")
    _, said = process.communicate(timeout=120)
    errors = [line for line in said.splitlines() if line.startswith(("error", "internal"))]
    assert len(errors) == 1, said
    assert "torchrun --nproc-per-node 2 -m csg train cls --resume --out" in errors[0]
    assert Run(data.parent / "r").load_checkpoint()[0] > 0


def test_a_run_is_resumed_with_as_many_processes_as_it_had(data):
    words = settings(optim__steps=400, model__freeze_batch_norm=True)
    process = started("train", "cls", *words, "--data", data, "--out", "r")
    process.terminate()
    process.communicate(timeout=60)
    assert Run(data.parent / "r").load_checkpoint()[0] > 0
    done = csg("train", "cls", "--resume", "--out", "r")
    refused(done, 2, "started with 2 processes.*torchrun --nproc-per-node 2 -m csg train cls --resume --out r")


def test_two_processes_measure_once_and_average_as_one_does(both, data):
    words = settings(model__freeze_batch_norm=True, data__holdout=0.2, evaluate_every=2, optim__average=0.5)
    done = both("train", "cls", *words, "--data", data, "--out", "two", "--json")
    assert done.returncode == 0, done.stderr
    assert csg("train", "cls", *words, "--data", data, "--out", "one").returncode == 0
    one, two = (Run(data.parent / name) for name in ("one", "two"))
    student = json.loads(done.stdout)["student"]
    assert (student["step"], student["rule"]) == (6, "average")
    lines = [json.loads(line) for line in two.metrics.read_text().splitlines()]
    assert [line["step"] for line in lines if "held_out/accuracy" in line] == [2, 4, 6]
    for name, value in one.student().items():
        torch.testing.assert_close(two.student()[name], value, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("training", ["lp-ft", "lora"])
def test_two_processes_train_what_one_does_in_each_mode(both, data, training):
    """The first phase of lp-ft is the frozen one."""
    words = settings(model__freeze_batch_norm=True, model__training=training, optim__warm_up=0, optim__average=0.2)
    assert both("train", "cls", *words, "--data", data, "--out", "two").returncode == 0
    assert csg("train", "cls", *words, "--data", data, "--out", "one").returncode == 0
    one, two = (Run(data.parent / name) for name in ("one", "two"))
    for name, value in one.student().items():
        torch.testing.assert_close(two.student()[name], value, rtol=1e-3, atol=1e-4)


def test_two_processes_are_one_with_the_doubled_batch(both, data, weights):
    """csg, whose losses compare an image with those of all processes."""
    changes = {"method": "csg", "model__weights": weights, "model__freeze_batch_norm": True, "optim__steps": 3}
    words = settings(**changes, optim__batch=8, optim__lr_heads=0.01)
    done = both("train", "cls", *words, "--data", data, "--out", "two", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 3, "one result, not two"
    assert csg("train", "cls", *words, "--data", data, "--out", "one").returncode == 0
    one, two = (Run(data.parent / name) for name in ("one", "two"))
    first, second = (json.loads(run.metrics.read_text().splitlines()[0]) for run in (one, two))
    assert first.keys() == second.keys()
    for name in first:
        if name.startswith(("loss", "positive")):
            assert second[name] == pytest.approx(first[name], rel=1e-3, abs=1e-4), name
    for name, tensor in one.student().items():
        torch.testing.assert_close(two.student()[name], tensor, rtol=1e-3, atol=1e-4)


def test_weights_without_a_gradient_do_not_stop_two_processes(both, data):
    pytest.importorskip("timm", reason="needs the extra timm")
    changes = {"model__backbone": "timm:pit_ti_224", "data__size": 224, "data__resize": 224, "optim__steps": 3}
    done = both("train", "cls", *settings(**changes), "--data", data, "--out", "two", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 3
    assert "broadcast_buffers" not in done.stderr, "a warning of torch"
