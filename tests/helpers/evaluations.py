"""Evaluations for tests: specifications and records of a journal, and running ones."""

import json
import random
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path

import pytest

from csg_serve.evaluate.records import ClassificationAnswer, EvaluationSpec, Session
from tests.helpers.cli import CSG, csg

TIMES = {"images_per_s", "latency_ms", "folder"}
SESSION = Session(started="2026-01-01T00:00:00Z", server="localhost:8001")


def make_spec(images):
    same = {"model": "m", "version": 1, "card": "", "data": ("s",), "labels": None, "tile": None, "dataset": "d"}
    return EvaluationSpec(**same, images=images, fingerprint="")


def make_answer(index, true, predicted, confidence=0.5, latency_ms=1.0):
    same = {"index": index, "elapsed_s": index / 1000, "latency_ms": latency_ms}
    return ClassificationAnswer(**same, true=true, predicted=predicted, confidence=confidence)


def make_records(count, classes, seed=0):
    """Records of a journal, one at a time."""
    rng = random.Random(seed)
    yield SESSION
    for index in range(count):
        confidence, true = round(rng.random(), 6), rng.randrange(classes)
        predicted = true if rng.random() < confidence else rng.randrange(classes)
        yield make_answer(index, true, predicted, confidence, rng.lognormvariate(2, 1))


LABELS = (
    "name: rgb\nignored: [9]\nclasses: [{name: red, ids: [0], colour: [255, 0, 0]}, "
    "{name: green, ids: [1], colour: [0, 255, 0]}, {name: blue, ids: [2], colour: [0, 0, 255]}]\n"
)

DIFFERENT = ("images_per_s", "latency_ms", "folder", "version", "skipped")  # between evaluations of the same images


def figures(text):
    """The figures of an evaluation's JSON that a disturbance must not change."""
    return {name: value for name, value in json.loads(text).items() if name not in DIFFERENT}


def evaluate(served, data, out):
    return "evaluate", "--json", "--server", served.grpc, "--model", "colour", "--data", data, "--out", out


@contextmanager
def evaluating(served, data, out):
    """A running `csg evaluate` with 200 answers; it must end without an error."""
    command = [*CSG, *map(str, evaluate(served, data, out))]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        journal = out / "journal.jsonl"
        while not journal.exists() or journal.read_bytes().count(b"\n") < 200:
            assert process.poll() is None
            time.sleep(0.01)
        yield process
    finally:
        if sys.exc_info()[0]:
            process.kill()


def evaluated(*args):
    """The JSON of an evaluation, without times and folder."""
    done = csg("evaluate", "--json", *args)
    assert done.returncode == 0, done.stderr
    return {name: value for name, value in json.loads(done.stdout).items() if name not in TIMES}


def check_figures_equal(one, other):
    """Check that figures are equal, apart from the rounding of a batch's size: confidences are kept in millionths."""
    assert {**one, "ece": None} == {**other, "ece": None}
    assert one.get("ece") == pytest.approx(other.get("ece"), abs=2e-6)


def check_same_figures(bundle, server, data):
    """Check that a bundle has the same figures and answers in this process as through a server with its name."""
    served = evaluated("--server", server, "--model", bundle.name, "--data", data, "--out", "served")
    here = evaluated(bundle, "--data", data, "--out", "here")
    assert (served.pop("version"), served.pop("bundle"), served.pop("model")) == (1, None, bundle.name)
    assert (here.pop("version"), here.pop("bundle")) == (0, str(bundle))
    here.pop("model")
    if "ece" not in here:
        assert [Path(one).read_bytes() for one in here.pop("pictures")] == [
            Path(one).read_bytes() for one in served.pop("pictures")
        ]
    check_figures_equal(here, served)
    assert _answers("here") == _answers("served")


def _answers(folder):
    """What was predicted for each image, by index."""
    lines = [json.loads(line) for line in Path(folder, "journal.jsonl").read_text().splitlines()]
    return {line["index"]: (line.get("predicted"), line.get("cells"), line.get("pixels")) for line in lines[1:]}
