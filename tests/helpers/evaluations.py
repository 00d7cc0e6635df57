"""Evaluations made up for tests: what was asked, and a journal's lines."""

import json
import random
import subprocess
import sys
import time
from contextlib import contextmanager

from csg_serve.evaluate.journal import Subject
from tests.helpers.cli import CSG

TIMES = ("images_per_s", "latency_ms", "folder")


def a_subject(images):
    same = {"model": "m", "version": 1, "card": "", "sources": ("s",), "labels": None, "tile": None, "dataset": "d"}
    return Subject(**same, images=images, fingerprint="")


def lines_of(count, classes, seed=0):
    """A journal's lines, made as they are asked for."""
    rng = random.Random(seed)
    yield {"sitting": "2026-01-01T00:00:00+00:00", "server": "localhost:8001"}
    for place in range(count):
        confidence, true = round(rng.random(), 6), rng.randrange(classes)
        predicted = true if rng.random() < confidence else rng.randrange(classes)
        yield {
            "place": place, "at": place / 1000, "ms": rng.lognormvariate(2, 1),
            "true": true, "predicted": predicted, "confidence": confidence,
        }  # fmt: skip


LABELS = (
    "name: rgb\nignored: [9]\nclasses: [{name: red, ids: [0], colour: [255, 0, 0]}, "
    "{name: green, ids: [1], colour: [0, 255, 0]}, {name: blue, ids: [2], colour: [0, 0, 255]}]\n"
)

OWN = ("images_per_s", "latency_ms", "folder", "version", "skipped")  # of one evaluation and not of another


def figures(words):
    """Of an evaluation's JSON those that a disturbance may not change."""
    return {name: value for name, value in json.loads(words).items() if name not in OWN}


def evaluate(served, data, out):
    return "evaluate", "--json", "--server", served.grpc, "--model", "colour", "--data", data, "--out", out


@contextmanager
def evaluating(served, data, out):
    """A running `csg evaluate`, well under way; it has to end well."""
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
