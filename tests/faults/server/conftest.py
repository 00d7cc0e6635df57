"""A server on a small disk, ten thousand images, some of them broken, and the figures of an undisturbed evaluation."""

import json

import pytest

from tests.helpers.broken_images import BROKEN, BROKEN_EVERY, COUNT, GOOD, broken
from tests.helpers.cli import csg
from tests.helpers.evaluations import evaluate, figures
from tests.helpers.small_disk import Served
from tests.helpers.tiny_bundle import COLOURS


@pytest.fixture(scope="package")
def served(tmp_path_factory):
    found = Served(tmp_path_factory.mktemp("faults"))
    try:
        found.start()
        yield found
    finally:
        found.remove()


@pytest.fixture(scope="package")
def lists(tmp_path_factory):
    """List files of 10,000 images, 5 % of them broken, and of the others alone; every tenth is labelled wrong."""
    root = tmp_path_factory.mktemp("images")
    for place, colour in enumerate(COLOURS):
        (root / colour).mkdir()
        files = {"a": GOOD[place], "wrong": GOOD[place - 1]} | {f"broken-{n}": file for n, file in enumerate(BROKEN)}
        for name, file in files.items():
            (root / colour / f"{name}.png").write_bytes(file)
    lines = []
    for number in range(COUNT):
        kind = f"broken-{number // BROKEN_EVERY % len(BROKEN)}" if broken(number) else "a" if number % 11 else "wrong"
        lines.append(f"{COLOURS[number % 3]}/{kind}.png {number % 3}\n")
    (root / "all.txt").write_text("".join(lines))
    (root / "good.txt").write_text("".join(line for line in lines if "broken" not in line))
    return root


@pytest.fixture(scope="package")
def undisturbed(served, lists, tmp_path_factory):
    """The figures of the images that can be read."""
    done = csg(*evaluate(served, lists / "good.txt", tmp_path_factory.mktemp("evaluation") / "one"))
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["accuracy"] == pytest.approx(10 / 11, abs=1e-3)
    return figures(done.stdout)
