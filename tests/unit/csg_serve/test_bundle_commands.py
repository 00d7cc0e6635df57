"""A bundle without a server: `csg evaluate` and `csg predict`, what they write, and what is refused."""

import csv
import io
import json
import shutil
import subprocess
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx.numpy_helper import from_array
from PIL import Image

from csg.bundle import MODEL, write_bundle
from tests.helpers.cli import CSG, csg, refused
from tests.helpers.evaluations import TIMES
from tests.helpers.image_files import colour_folders
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
    return str(colour_folders(Path("data"), 10))


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


def test_an_evaluation_is_not_resumed_with_other_weights_under_the_same_card(bundle, data):
    result(bundle.path, "--data", data, "--out", "kept")
    Path("kept/result.json").unlink()
    graph, weight = onnx.load(bundle.model), 2 * np.eye(3, dtype=np.float32)
    next(one for one in graph.graph.initializer if one.name == "weight").CopyFrom(from_array(weight, "weight"))
    shutil.rmtree(bundle.path)
    write_bundle(bundle.path, bundle.card, {MODEL: graph.SerializeToString()})
    refused(csg("evaluate", "--resume", "--out", "kept"), 3, "start a new evaluation")


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
    refused(csg("evaluate", "page.html", "--server", "localhost:1"), 2, r"unexpected argument 'page\.html'")
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


def predicted(*args, code=0):
    done = csg("predict", *args)
    assert done.returncode == code, done.stderr
    return done


def test_rows_for_people_for_spreadsheets_and_for_programs(bundle, data):
    image = "data/green/0.png"
    assert predicted(bundle.path, image, "--top", 2).stdout == f"{image}: green 100.0%, red 0.0%\n"
    (row,) = csv.DictReader(io.StringIO(predicted(bundle.path, image, "--top", 9, "--format", "csv").stdout))
    assert (row["image"], row["class"], row["class_2"], row["class_3"]) == (image, "green", "red", "blue")
    assert sum(float(row[f"confidence{n}"]) for n in ("", "_2", "_3")) == pytest.approx(1, abs=1e-5)
    line = json.loads(predicted(bundle.path, image, "--top", 2, "--format", "jsonl").stdout)
    assert (line["class"], [one["class"] for one in line["top"]]) == ("green", ["green", "red"])
    whole = json.loads(predicted(bundle.path, image, "--json").stdout)
    assert (whole["model"], whole["version"], len(whole["predictions"])) == ("colour", 0, 1)
    assert whole["predictions"][0].keys() == {"image", "class", "confidence"}


def test_masks_of_images_of_one_name_have_files_of_their_own(data):
    scenes = write_scene_bundle(Path("scenes")).path
    rows = list(csv.DictReader(io.StringIO(predicted(scenes, "data", "--format", "csv", "--out", "m").stdout)))
    assert len(rows) == len({row["mask"] for row in rows}) == len(list(Path("m").glob("*-overlay*.png"))) == 30
    assert [float(rows[0][f"share_{name}"]) for name in COLOURS] == [0, 0, 1]


def test_a_broken_image_does_not_end_the_rest(bundle, data):
    Path("a,b\nc.png").write_bytes(b"broken")
    words = (bundle.path, "a,b\nc.png", "data/red/0.png", "no*.png", "--format")
    done = predicted(*words, "csv", code=3)
    rows = list(csv.DictReader(io.StringIO(done.stdout)))
    assert [(row["image"], row["class"]) for row in rows] == [
        ("a,b\nc.png", ""),
        ("data/red/0.png", "red"),
        ("no*.png", ""),
    ]
    assert "not an image file" in rows[0]["error"]
    assert "2 of 3 images can't be read, first: image a,b" in done.stderr
    assert "images predicted: 1, skipped: 2" in done.stderr
    lines = predicted(*words, "jsonl", "--on-unreadable", "skip").stdout.splitlines()
    assert ["error" in json.loads(line) for line in lines] == [True, False, True]
    refused(csg("predict", *words, "text", "--on-unreadable", "fail"), 3, "--on-unreadable skip")


def test_words_of_predict_that_do_not_fit_are_refused(bundle, data):
    scenes = write_scene_bundle(Path("scenes")).path
    for words, pattern in {
        (bundle.path,): "no images are named",
        (bundle.path, data, "--out", "x"): "--out is the folder of a segmenter's masks",
        (scenes, data, "--top", "2"): "--top is for classifiers",
        (bundle.path, data, "--tile", "64"): "leave out --tile",
        (bundle.path, data, "--json", "--format", "csv"): "exclude each other",
        (bundle.path, data, scenes): "name one bundle",
        (bundle.path, "file:///etc/passwd"): "addresses are not",
        (bundle.path, data, "--server", "a:1"): "leave out --server",
    }.items():
        refused(csg("predict", *words), 2, pattern)
    refused(csg("predict", "bundles/other", data), 3, "there is no bundle and no image bundles/other")
    refused(csg("predict", bundle.path, "x" * 5000), 3, "image x+ can't be read: .*File name too long")


def test_one_class_for_many_images_is_worth_a_line(bundle, data):
    hint = "every one of 20 images was predicted as red: if they show other classes too, check the training"
    assert hint in predicted(bundle.path, "data/red", "data/red").stderr
    assert "every one of" not in predicted(bundle.path, "data/red", "data/blue").stderr
    assert "every one of" not in predicted(bundle.path, "data/red").stderr
    for number in range(10):
        for name in COLOURS:
            Image.new("RGB", (40, 40), "blue").save(f"data/{name}/{number}.png")
    found = csg("evaluate", bundle.path, "--data", data)
    assert "every one of 30 images was predicted as blue" in found.stderr
    scenes = write_scene_bundle(Path("scenes")).path
    assert "every pixel of all 30 images was predicted as blue" in predicted(scenes, data).stderr


def test_rows_come_one_by_one_and_a_closed_pipe_is_no_error(bundle, data):
    many = ["data/red/0.png"] * 300
    command = [*CSG, "predict", str(bundle.path), *many, "--format", "jsonl"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert json.loads(process.stdout.readline())["class"] == "red"
        process.stdout.close()
        assert "Traceback" not in process.stderr.read()
    assert process.returncode == 141
