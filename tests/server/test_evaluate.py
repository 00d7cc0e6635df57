"""`csg evaluate` against a real Triton: interrupted and resumed, its pages, and what it refuses."""

import json
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch
from PIL import Image

from csg.datasets.classification import read_classification_dataset
from csg.datasets.segmentation import read_segmentation_dataset
from csg_export.export import export
from csg_train.recipe import load_recipe
from csg_train.tasks import TASKS, predicting
from tests.helpers.browser import HEADINGS, SCENE_HEADINGS, check_page, needs_chromium, opened, started
from tests.helpers.cli import csg, refused
from tests.helpers.evaluations import LABELS, TIMES, check_figures_equal, check_same_figures, evaluated
from tests.helpers.image_files import encoded, noise
from tests.helpers.noise_sets import students, write_noise
from tests.helpers.served import deploy, serving
from tests.helpers.small_source import SIDE
from tests.helpers.tiny_bundle import write_colour_bundle, write_scene_bundle

pytestmark = pytest.mark.server

COLOURS = ("red", "green", "blue")


def of_the_run(name, folder):
    """What a run measures of its student on images."""
    if name == "cls":
        task, images = "cls", read_classification_dataset([folder], COLOURS)
        recipe = load_recipe("digits", {"data.size": SIDE, "data.resize": SIDE})
    else:
        task, images, recipe = "seg", read_segmentation_dataset([folder]), load_recipe("camvid", {"data.resize": None})
    with predicting(students()[name][0].network, mirrored=True) as predict:
        return TASKS[task].measure(predict, images.class_spec, images, recipe, torch.device("cpu"))


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """1,500 images of three colours, every tenth of another one; eight images with masks; noise; a model for each."""
    root, rng = tmp_path_factory.mktemp("evaluate"), np.random.default_rng(0)
    for number, colour in enumerate(COLOURS):
        (root / "colours" / colour).mkdir(parents=True)
        for shade in range(10):
            pixels = np.full((120, 160, 3), 20 * shade, np.uint8)
            pixels[..., (number + (shade == 9)) % 3] += 1 + shade % 3
            Image.fromarray(pixels).save(root / "colours" / colour / f"{shade}.png")
    lines = [f"{COLOURS[n % 3]}/{n % 10}.png {n % 3}" for n in range(1500)]
    (root / "colours" / "list.txt").write_text("\n".join(lines))
    for kind in ("images", "labels"):
        (root / "scenes" / kind).mkdir(parents=True)
    (root / "scenes" / "labels.yaml").write_text(LABELS)
    for number in range(8):
        pixels = rng.integers(0, 256, (48, 64, 3), dtype=np.uint8)
        labels = pixels.argmax(2).astype(np.uint8)
        labels[: 3 * number] = 0
        Image.fromarray(pixels).save(root / "scenes" / "images" / f"{number}.png")
        Image.fromarray(labels).save(root / "scenes" / "labels" / f"{number}.png")
    write_colour_bundle(root / "bundles" / "colour")
    write_scene_bundle(root / "bundles" / "scenes", "scenes")
    for name, (source, options) in students().items():
        export(source, options, root / "bundles" / name)
        write_noise(root / "noise" / name, source.task)
    for name in ("colour", "scenes", "cls", "seg"):
        deploy(root / "bundles" / name, root / "repository", "--no-encoded", "--instances", 1, "--name", name)
    return root


@pytest.fixture(scope="module")
def addresses(folder):
    """gRPC and HTTP address of a Triton on the repository."""
    with serving(folder / "repository") as state:
        yield state["grpc"], f"http://{state['http']}"


@pytest.fixture
def server(addresses):
    return addresses[0]


def test_a_killed_evaluation_ends_with_the_same_figures(folder, addresses, server, tmp_path):
    """Killed in the middle with an incomplete last line, then resumed through two addresses."""
    ask = ("--server", server, "--model", "colour", "--data", folder / "colours" / "list.txt")
    undisturbed = evaluated(*ask, "--ordered", "--out", tmp_path / "whole")
    assert undisturbed.pop("report") is None
    assert undisturbed["images"] == 1500
    assert undisturbed["accuracy"] == 0.9
    assert undisturbed["ece"] > 0.05
    journal = tmp_path / "evaluations" / "colour-1-1" / "journal.jsonl"
    command = [sys.executable, "-m", "csg", "evaluate", *map(str, ask)]
    process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not journal.exists() or journal.read_bytes().count(b"\n") < 100:
        assert process.poll() is None
        time.sleep(0.01)
    process.send_signal(signal.SIGKILL)
    process.wait()
    kept = journal.read_bytes().rpartition(b"\n")[0].count(b"\n")
    assert 100 <= kept < 1500
    with journal.open("ab") as file:
        file.write(b'{"index": 17')
    assert not (journal.parent / "result.json").exists()
    several = [word for address in addresses for word in ("--server", address)]
    done = csg("evaluate", *several, "--resume", "--report", "--json")
    assert done.returncode == 0, done.stderr
    assert f"{kept} of 1500 images are recorded" in done.stderr
    report = json.loads(done.stdout)
    assert json.loads((journal.parent / "result.json").read_text()) == report
    assert report.pop("folder") == "evaluations/colour-1-1"
    page = report.pop("report")
    assert page == "evaluations/colour-1-1/report.html"
    assert "in 2 sessions" in (tmp_path / page).read_text()
    assert {name: value for name, value in report.items() if name not in TIMES} == undisturbed
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    assert sorted(line["index"] for line in lines if "index" in line) == list(range(1500))
    assert [line["server"] for line in lines if line["kind"] == "session"] == [server, ", ".join(addresses)]
    refused(csg("evaluate", "--server", server, "--resume"), 3, "no unfinished evaluation in evaluations/")


def test_a_resumed_segmenter_ends_with_the_same_figures(folder, server, tmp_path):
    ask = ("--server", server, "--model", "scenes", "--data", folder / "scenes")
    whole = evaluated(*ask, "--out", tmp_path / "one")
    assert whole["miou_interval"][0] < whole["miou"] < whole["miou_interval"][1]
    (tmp_path / "one").rename(tmp_path / "two")
    journal, pictures = tmp_path / "two" / "journal.jsonl", whole.pop("pictures")
    (tmp_path / "two" / "result.json").unlink()
    journal.write_bytes(journal.read_bytes()[: len(journal.read_bytes()) // 2])
    resumed = evaluated("--server", server, "--resume", "--out", tmp_path / "two")
    assert [path.replace("/two/", "/one/") for path in resumed.pop("pictures")] == pictures
    assert resumed == whole


@needs_chromium
@pytest.mark.parametrize(
    ("task", "data", "headings", "figure"),
    [("colour", "colours", HEADINGS, "90.00 %"), ("scenes", "scenes", SCENE_HEADINGS, "pixel accuracy")],
)
def test_the_reports_of_both_tasks(folder, server, tmp_path, task, data, headings, figure):
    """As a user writes them; tests/unit/csg_serve/test_report.py looks at the details."""
    page, ask = (
        tmp_path / task / "page.html",
        ("evaluate", "--server", server, "--model", task, "--data", folder / data),
    )
    done = csg(*ask, "--report", page)
    assert done.returncode == 0, done.stderr
    assert str(page) in done.stdout
    refused(csg(*ask, "--report", "/proc/no/page.html"), 3, "/proc/no/page.html can't be written")
    with started() as browser, opened(browser, page, 390) as tab:
        check_page(tab, headings, 3)
        assert figure.lower() in tab.locator(".tiles").inner_text().lower()
        assert "written by hand" in tab.locator("#card").inner_text()
        assert server in tab.locator("#method").inner_text()


def test_only_the_same_model_and_images_are_resumed(folder, server, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(folder / "colours", data)
    (data / "blue" / "99.png").write_bytes((data / "blue" / "0.png").read_bytes()[:60])  # its header is whole
    (data / "list.txt").unlink()
    ask = ("evaluate", "--server", server, "--model", "colour", "--data", data, "--out", tmp_path / "kept")
    failed = csg(*ask, "--ordered")
    refused(failed, 3, r"blue/99\.png", "--on-unreadable skip")
    assert "images are recorded; continue with `csg evaluate --resume" in failed.stderr
    refused(csg(*ask), 2, "kept holds an evaluation already", "--resume")
    resume = ("evaluate", "--server", server, "--resume", "--out", tmp_path / "kept")
    refused(csg(*resume, "--data", folder / "colours"), 3, "images of colours are not those that", "--data")
    refused(csg(*resume, "--out", tmp_path / "none"), 3, "none holds no evaluation")
    deploy(folder / "bundles" / "colour", folder / "repository", "--no-encoded", "--instances", 1)
    refused(csg(*resume), 3, "measures version 1 of colour, but the server has version 2", "--rollback")
    back = ("deploy", "--rollback", "--name", "colour", "--repository", folder / "repository")
    assert csg(*back).returncode == 0
    Image.new("RGB", (50, 50), "red").save(data / "red" / "more.png")
    refused(csg(*resume), 3, "images of data are not those that", "start a new evaluation")
    (data / "red" / "more.png").unlink()
    data = data.rename(tmp_path / "moved")
    refused(csg(*resume), 3, "the images of .*kept are not at .*data; name their place with --data")
    resume = (*resume, "--data", data)
    done = csg(*resume, "--on-unreadable", "skip", "--json")
    assert done.returncode == 0, done.stderr
    assert (json.loads(done.stdout)["images"], json.loads(done.stdout)["skipped"]) == (30, 1)


def test_a_failure_before_the_first_answer_leaves_nothing(folder, server, tmp_path):
    for name in ("red", "green"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "0.png").write_bytes(encoded(noise())[:60])  # its header is whole
    ask = ("evaluate", "--server", server, "--model", "colour", "--data", tmp_path / "data")
    refused(csg(*ask), 3, r"0\.png")
    assert not (tmp_path / "evaluations").exists()
    refused(csg(*ask, "--on-unreadable", "skip"), 3, "none of the 2 images of data can be read")
    refused(csg("evaluate", "page.html", "--server", server), 2, "unexpected argument 'page.html'", "--report")


@pytest.mark.parametrize(
    ("name", "figures"),
    [("cls", ("accuracy", "mean_class_accuracy")), ("seg", ("miou", "pixel_accuracy", "frequency_weighted_iou"))],
)
def test_served_figures_are_those_of_the_network(folder, server, tmp_path, name, figures):
    expected = of_the_run(name, folder / "noise" / name)
    ask = ("evaluate", "--json", "--server", server, "--model", name, "--data", folder / "noise" / name)
    done = csg(*ask, "--mirrored", "--out", tmp_path / "kept")
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for figure in figures:
        assert found[figure] == pytest.approx(getattr(expected.evaluation, figure), abs=1e-3)
        assert found["mirrored"][figure] == pytest.approx(getattr(expected.mirrored, figure), abs=1e-3)
        assert found["mirrored"][figure] != found[figure]
    plain = json.loads(csg(*ask, "--out", tmp_path / "plain").stdout)
    assert plain["mirrored"] is None
    same = plain.keys() - {*TIMES, "mirrored", "pictures"}
    check_figures_equal(*({key: report[key] for key in same} for report in (found, plain)))
    refused(
        csg("evaluate", "--server", server, "--resume", "--mirrored", "--out", tmp_path / "plain"),
        2,
        "started without --mirrored",
    )


@pytest.mark.parametrize("name", ["cls", "seg"])
def test_a_bundle_has_the_same_figures_here_as_through_its_server(folder, server, name):
    check_same_figures(folder / "bundles" / name, server, folder / "noise" / name)


def test_an_interrupted_mirrored_evaluation_ends_with_the_same_figures(folder, server, tmp_path):
    ask = ("evaluate", "--json", "--server", server, "--model", "seg", "--data", folder / "noise" / "seg", "--tile", 64)
    whole = json.loads(csg(*ask, "--mirrored", "--out", tmp_path / "kept").stdout)
    (tmp_path / "kept" / "result.json").unlink()
    journal = tmp_path / "kept" / "journal.jsonl"
    journal.write_bytes(journal.read_bytes()[: len(journal.read_bytes()) // 2])
    done = csg(
        "evaluate", "--server", server, "--resume", "--out", tmp_path / "kept", "--report", tmp_path / "page.html"
    )
    assert f"{whole['mirrored']['miou']:.2%}" in done.stdout
    assert "with mirror image" in done.stdout
    assert json.loads((tmp_path / "kept" / "result.json").read_text())["mirrored"] == whole["mirrored"]
    page = (tmp_path / "page.html").read_text()
    assert f"{100 * whole['mirrored']['miou']:.2f} %" in page
    assert "mean probability of an image and its mirror image" in page
