"""A bundle without a server: `csg evaluate` of it, resumed, and what is refused."""

import json
import shutil
from pathlib import Path

import pytest
from PIL import Image

from tests.helpers.cli import csg, refused
from tests.helpers.evaluations import TIMES
from tests.helpers.tiny_bundle import (
    COLOURS,
    write_colour_bundle,
    write_scene_bundle,
    write_unloadable_bundle,
    write_wrong_bundle,
)


@pytest.fixture
def bundle():
    return write_colour_bundle(Path("bundles/colour"))


@pytest.fixture
def data():
    for name in COLOURS:
        Path("data", name).mkdir(parents=True)
        for number in range(10):
            Image.new("RGB", (40, 40), name).save(f"data/{name}/{number}.png")
    return "data"


def result(*args):
    done = csg("evaluate", "--json", *args)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_a_bundle_is_evaluated_here_and_its_page_says_so(bundle, data):
    found = result(bundle.path, "--data", data, "--report", "page.html")
    assert (found["version"], found["bundle"]) == (0, str(bundle.path.resolve()))
    assert (found["images"], found["accuracy"]) == (30, 1.0)
    assert found["folder"] == "evaluations/colour-bundle-1"
    page = Path("page.html").read_text()
    assert "without a server" in page
    assert "server at" not in page
    assert "version 0" not in page


def test_an_evaluation_of_a_bundle_is_resumed_without_naming_it(bundle, data):
    whole = result(bundle.path, "--data", data, "--out", "kept")
    Path("kept/result.json").unlink()
    lines = Path("kept/journal.jsonl").read_text().splitlines(keepends=True)
    Path("kept/journal.jsonl").write_text("".join(lines[:7]))
    resumed = result("--resume", "--out", "kept")
    assert {name: value for name, value in resumed.items() if name not in TIMES} == {
        name: value for name, value in whole.items() if name not in TIMES
    }
    Path("kept/result.json").unlink()
    refused(csg("evaluate", "--resume", "--out", "kept", "--server", "localhost:1"), 4, "localhost:1")
    moved = bundle.path.rename("moved")
    refused(csg("evaluate", "--resume", "--out", "kept"), 3, "there is no folder .*bundles/colour")
    assert result(moved, "--resume", "--out", "kept")["accuracy"] == 1.0
    scenes = write_scene_bundle(Path("bundles/scenes")).path
    refused(csg("evaluate", scenes, "--resume", "--out", "kept", "--data", data), 3)


def test_words_that_contradict_each_other_are_refused(bundle, data):
    run = Path("run")
    run.mkdir()
    (run / "recipe.yaml").touch()
    refused(csg("evaluate", bundle.path, "--server", "localhost:1"), 2, "without a server; leave out --server")
    refused(csg("evaluate", bundle.path, "--model", "colour"), 2, "leave out --model")
    refused(csg("evaluate", bundle.path, bundle.path), 2, "name one bundle")
    refused(csg("evaluate", bundle.path, "a.html", "b.html", "--report"), 2, "unexpected argument 'b.html'")
    refused(csg("evaluate", "bundles/other"), 2, "unexpected argument 'bundles/other'; a bundle is a folder")
    refused(csg("evaluate", run), 3, "run is a run, not a bundle; export it")


def test_a_bundle_that_can_not_be_trusted_is_one_line(bundle, data):
    shutil.copytree(bundle.path, "damaged")
    Path("damaged/labels.txt").write_text("red\n")
    Path("no-card").mkdir()
    Path("no-card/model.onnx").touch()
    write_wrong_bundle(Path("wrong"))
    write_unloadable_bundle(Path("unloadable"), bundle)
    for folder, code, words in (
        ("damaged", 5, "does not match its SHA-256"),
        ("no-card", 3, "it has no card.json"),
        ("wrong", 5, "answers wrongly here"),
        ("unloadable", 3, "ONNX Runtime can't load .*NoSuchOperator"),
    ):
        refused(csg("evaluate", folder, "--data", data), code, words)
    assert not Path("evaluations").exists()
