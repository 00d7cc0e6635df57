"""The whole road as a person walks it: five commands in an empty folder, with a real Triton at its end."""

import json
import subprocess
import sys

import pytest
import torch
from csg_train.evaluate import evaluate_student

from csg.bundle import read_bundle
from csg_train.run import Run
from csg_train.student import load_student

SHORT = ("--max-steps", "40", "--set", "data.count=2000", "--set", "optim.batch=32")
FREE_PORTS = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")


@pytest.fixture(scope="module")
def road(weights, tmp_path_factory):
    """What each command printed: its JSON object, and its first line of words."""
    folder, said = tmp_path_factory.mktemp("road"), {}

    def csg(*args):
        done = subprocess.run(
            [sys.executable, "-m", "csg", *args, "--json"], cwd=folder, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        said[args[0]] = json.loads(done.stdout), done.stderr.splitlines()[0]
        return said[args[0]][0]

    csg("train", "cls", *SHORT)
    csg("export", "--fp16")
    csg("deploy")
    addresses = csg("serve", "--detach", *FREE_PORTS)
    try:
        csg("evaluate", "--server", addresses["grpc"])
    finally:
        stopped = subprocess.run([sys.executable, "-m", "csg", "serve", "--stop"], cwd=folder, capture_output=True)
        assert stopped.returncode == 0
    return folder, said


def test_each_command_says_first_what_it_took_by_default(road):
    _, said = road
    first = {command: line for command, (_, line) in said.items()}
    assert "recipe digits (default)" in first["train"]
    assert "runs/cls/digits-csg-1 (newest)" in first["export"]
    assert "bundles/digits-csg-1-fp16-1 (newest)" in first["deploy"]
    assert "model_repository/" in first["serve"]
    assert "digits (default)" in first["evaluate"]


def test_each_command_answers_scripts_with_the_promised_keys(road):
    _, said = road
    keys = {command: result.keys() for command, (result, _) in said.items()}
    assert {"run", "steps", "images_per_s", "real"} <= keys["train"]
    assert {"bundle", "precision", "format", "bytes", "parity"} == keys["export"]
    assert {"agreement", "max_abs_diff"} == said["export"][0]["parity"].keys()
    assert {"model", "version", "repository", "backend"} == keys["deploy"]
    assert {"pid", "http", "grpc", "metrics"} == keys["serve"]
    assert {
        "model",
        "version",
        "images",
        "skipped",
        "accuracy",
        "mean_class_accuracy",
        "per_class",
        "images_per_s",
    } == (keys["evaluate"])


def test_accuracy_through_triton_is_the_students_own(road, real_digits):
    """At most half a point apart on the same images; the model is better than chance, so that this says something."""
    folder, said = road
    served = said["evaluate"][0]
    run = Run(folder / said["train"][0]["run"])
    spec = run.recipe().data.image_input()
    scores = evaluate_student(load_student(run), real_digits, spec, torch.device("cpu")).scores
    assert served["images"] == scores.images == 1797
    assert served["accuracy"] == pytest.approx(scores.accuracy, abs=0.005)
    assert served["mean_class_accuracy"] == pytest.approx(scores.mean_class_accuracy, abs=0.005)
    assert scores.accuracy == pytest.approx(said["train"][0]["real"]["accuracy"], abs=1e-9)
    assert scores.accuracy > 0.2


def test_the_card_tells_the_whole_story(road):
    folder, said = road
    card = read_bundle(folder / said["export"][0]["bundle"]).card
    assert card.provenance.method == "csg"
    assert card.provenance.steps == 40
    assert card.evaluations[0].accuracy == said["train"][0]["real"]["accuracy"]
    assert card.parity.images == 512
