"""Evaluations at length: kept as they go, gone on with after a crash to the same figures, in constant memory."""

import itertools
import json
import random
import shutil
import signal
import subprocess
import sys
import time
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from csg.confidence_intervals import SegmentationBootstrap, mean_class_accuracy_interval, wilson
from csg.errors import InputError, UsageError
from csg.metrics import BINS, PixelConfusion, Reliability, segmentation_scores
from csg_serve.evaluate.classification import summarise
from csg_serve.evaluate.journal import Journal, Subject
from csg_serve.evaluate.latency_histogram import Latencies
from tests.helpers.browser import HEADINGS, SCENE_HEADINGS, check_page, needs_chromium, opened, started
from tests.helpers.cli import csg, refused
from tests.helpers.served import deploy, serving
from tests.helpers.tiny_bundle import write_colour_bundle, write_scene_bundle
from tests.server.test_serve_segmentation import LABELS

COLOURS = ("red", "green", "blue")
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


def test_calibration_is_that_of_its_definition():
    rng, found = np.random.default_rng(0), Reliability()
    confidences = np.concatenate([rng.random(5000).round(6), [0, 1, 1 / BINS, 2 / BINS, 0.4]])
    right = rng.random(len(confidences)) < confidences**2
    for confidence, correct in zip(confidences, right, strict=True):
        found.add(float(confidence), bool(correct))
    ece, edges = 0.0, np.arange(BINS + 1) / BINS
    for low, high in itertools.pairwise(edges):
        inside = (confidences.round(6) > low) & (confidences.round(6) <= high) | (confidences == 0) & (low == 0)
        ece += abs(right[inside].mean() - confidences[inside].mean()) * inside.mean()
    assert found.images.sum() == len(confidences)
    assert found.ece == pytest.approx(ece, abs=2e-4)
    assert found.ece > 0.1


def test_intervals():
    """Wilson's against published values, the bootstraps against what they estimate."""
    low, high = wilson(np.array([0, 5, 81, 0]), np.array([10, 10, 263, 0]))
    assert low[:3] == pytest.approx([0, 0.2366, 0.2553], abs=1e-4)  # Newcombe 1998, table I: 81 of 263
    assert high[:3] == pytest.approx([0.2775, 0.7634, 0.3662], abs=1e-4)
    assert np.isnan(low[3])
    confusion = np.array([[900, 100, 0], [5, 5, 0], [0, 0, 0]])
    low, high = mean_class_accuracy_interval(confusion)
    spread = np.sqrt(0.9 * 0.1 / 1000 + 0.5 * 0.5 / 10) / 2
    assert (low, high) == pytest.approx((0.7 - 1.96 * spread, 0.7 + 1.96 * spread), abs=0.02)


def test_the_bootstrap_over_scenes_is_one_and_knows_no_order():
    rng, counts = np.random.default_rng(0), PixelConfusion(4)
    matrices = []
    for _ in range(40):
        true = rng.integers(0, 4, 500).astype(np.uint8)
        wrong = rng.random(500) < rng.random() * 0.6
        matrices.append(counts.of(true, np.where(wrong, rng.integers(0, 4, 500), true).astype(np.uint8)))
    forward, backward = SegmentationBootstrap(4), SegmentationBootstrap(4)
    for place, matrix in enumerate(matrices):
        forward.add(place, matrix)
    for place, matrix in reversed(list(enumerate(matrices))):
        backward.add(place, matrix)
    assert forward.miou() == backward.miou()
    drawn = [segmentation_scores(sum(matrices[p] for p in rng.integers(0, 40, 40))).miou for _ in range(1000)]
    assert forward.miou() == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.015)
    assert SegmentationBootstrap(4).miou() is None


def test_latencies_are_within_one_percent():
    values, found = np.random.default_rng(0).lognormal(3, 1, 20000), Latencies()
    for value in values:
        found.add(value)
    for share in (0.01, 0.5, 0.9, 0.99, 1):
        assert found.quantile(share) == pytest.approx(np.quantile(values, share, method="inverted_cdf"), rel=0.011)


def test_the_figures_do_not_depend_on_the_order_of_the_answers(tmp_path):
    lines = list(lines_of(3000, 7))
    shuffled = [lines[0], *random.Random(1).sample(lines[1:], 3000)]
    one, other = (summarise(tmp_path, a_subject(3000), tuple("abcdefg"), some) for some in (lines, shuffled))
    assert {k: v for k, v in one.to_dict().items() if k not in TIMES} == {
        k: v for k, v in other.to_dict().items() if k not in TIMES
    }
    assert one.mistakes == other.mistakes
    surest = sorted(-line["confidence"] for line in lines[1:] if line["true"] != line["predicted"])[:24]
    assert [-mistake.confidence for mistake in one.mistakes] == surest


def test_memory_does_not_grow_with_the_images(tmp_path):
    def peak(count):
        tracemalloc.start()
        summarise(tmp_path, a_subject(count), tuple("abcdefg"), lines_of(count, 7))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    few = peak(5_000)
    assert peak(50_000) < few + 100_000


def test_a_journal_survives_a_crash_and_is_one_process_at_a_time(tmp_path):
    journal = Journal(tmp_path, 5)
    journal.begin("localhost:8001")
    for place in (3, 1):
        journal.add(place, ms=1.5, predicted=0)
    with pytest.raises(UsageError, match="another process"):
        Journal(tmp_path, 5)
    journal.close()
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole + b'{"place": 4, "at": 0.5, "pre')
    again = Journal(tmp_path, 5)
    assert (again.pending(), again.done) == ([0, 2, 4], 2)
    again.add(0, ms=2.5, predicted=0)
    assert [line.get("place") for line in again.lines()] == [None, 3, 1, 0]
    again.close()
    for damaged in (whole.replace(b'"place": 3', b'"pl'), whole.replace(b'"place": 3', b'"place": 5'), b"[]\n"):
        journal.path.write_bytes(damaged)
        with pytest.raises(InputError, match="damaged in line"):
            Journal(tmp_path, 5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A list of 1,500 images in three colours, every tenth of another; eight scenes; a model for each."""
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
    for name in ("colour", "scenes"):
        deploy(root / "bundles" / name, root / "repository", "--no-encoded", "--instances", 1)
    return root


@pytest.fixture(scope="module")
def addresses(folder):
    """Of a Triton on the repository: gRPC's and HTTP's."""
    with serving(folder / "repository") as state:
        yield state["grpc"], f"http://{state['http']}"


@pytest.fixture
def server(addresses):
    return addresses[0]


def evaluated(*args):
    """The JSON of an evaluation, without what may differ between two of the same."""
    done = csg("evaluate", "--json", *args)
    assert done.returncode == 0, done.stderr
    return {name: value for name, value in json.loads(done.stdout).items() if name not in TIMES}


def test_a_killed_evaluation_ends_in_the_same_figures(folder, addresses, server, tmp_path):
    """kill -9 in the middle, a line half written, gone on with through two addresses; the undisturbed one in order."""
    ask = ("--server", server, "--model", "colour", "--data", folder / "colours" / "list.txt")
    undisturbed = evaluated(*ask, "--ordered", "--out", tmp_path / "whole")
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
        file.write(b'{"place": 17')
    assert not (journal.parent / "result.json").exists()
    several = [word for address in addresses for word in ("--server", address)]
    done = csg("evaluate", *several, "--resume", "--report", "--json")
    assert done.returncode == 0, done.stderr
    assert f"{kept} of 1500 images are there" in done.stderr
    report = json.loads(done.stdout)
    assert report.pop("folder") == "evaluations/colour-1-1"
    page = report.pop("report")
    assert page == "evaluations/colour-1-1/report.html"
    assert "in 2 sittings" in (tmp_path / page).read_text()
    assert {name: value for name, value in report.items() if name not in TIMES} == undisturbed
    assert json.loads((journal.parent / "result.json").read_text()).keys() == {*report, "folder"}
    lines = [json.loads(line) for line in journal.read_text().splitlines()]
    assert sorted(line["place"] for line in lines if "place" in line) == list(range(1500))
    assert [line["server"] for line in lines if "sitting" in line] == [server, ", ".join(addresses)]
    refused(csg("evaluate", "--server", server, "--resume"), 3, "no unfinished evaluation is in evaluations/")


def test_scenes_go_on_to_the_same_figures(folder, server, tmp_path):
    ask = ("--server", server, "--model", "scenes", "--data", folder / "scenes")
    whole = evaluated(*ask, "--out", tmp_path / "one")
    assert whole["miou_interval"][0] < whole["miou"] < whole["miou_interval"][1]
    (tmp_path / "one").rename(tmp_path / "two")
    journal, words = tmp_path / "two" / "journal.jsonl", whole.pop("pictures")
    (tmp_path / "two" / "result.json").unlink()
    journal.write_bytes(journal.read_bytes()[: len(journal.read_bytes()) // 2])
    resumed = evaluated("--server", server, "--resume", "--out", tmp_path / "two")
    assert [path.replace("/two/", "/one/") for path in resumed.pop("pictures")] == words
    assert resumed == whole


@needs_chromium
@pytest.mark.parametrize(
    ("task", "data", "headings", "words"),
    [("colour", "colours", HEADINGS, "90.00 %"), ("scenes", "scenes", SCENE_HEADINGS, "pixel accuracy")],
)
def test_the_reports_of_both_tasks(folder, server, tmp_path, task, data, headings, words):
    """As a user makes them; test_report.py looks more closely."""
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
        assert words.lower() in tab.locator(".tiles").inner_text().lower()
        assert "written by hand" in tab.locator("#card").inner_text()
        assert server in tab.locator("#method").inner_text()


def test_only_the_same_is_gone_on_with(folder, server, tmp_path):
    data = tmp_path / "data"
    shutil.copytree(folder / "colours", data)
    (data / "blue" / "99.png").write_bytes(b"broken")
    (data / "list.txt").unlink()
    ask = ("evaluate", "--server", server, "--model", "colour", "--data", data, "--out", tmp_path / "kept")
    failed = csg(*ask, "--ordered")
    refused(failed, 3, r"blue/99\.png", "--on-unreadable skip")
    assert "images are kept; go on with `csg evaluate --resume" in failed.stderr
    refused(csg(*ask), 2, "kept holds an evaluation already", "--resume")
    resume = ("evaluate", "--server", server, "--resume", "--out", tmp_path / "kept")
    refused(csg(*resume, "--data", folder / "colours"), 2, f"is of other data: {data}", "leave --data out")
    refused(csg(*resume, "--out", tmp_path / "none"), 3, "none is no evaluation")
    deploy(folder / "bundles" / "colour", folder / "repository", "--no-encoded", "--instances", 1)
    refused(csg(*resume), 3, "of version 1 of colour, the server has version 2", "--rollback")
    back = ("deploy", "--rollback", "--name", "colour", "--repository", folder / "repository")
    assert csg(*back).returncode == 0
    Image.new("RGB", (50, 50), "red").save(data / "red" / "more.png")
    refused(csg(*resume), 3, "images of data are not those", "start anew")
    (data / "red" / "more.png").unlink()
    done = csg(*resume, "--on-unreadable", "skip", "--json")
    assert done.returncode == 0, done.stderr
    assert (json.loads(done.stdout)["images"], json.loads(done.stdout)["skipped"]) == (30, 1)


def test_what_never_began_leaves_nothing(folder, server, tmp_path):
    for name in ("red", "green"):
        (tmp_path / "data" / name).mkdir(parents=True)
        (tmp_path / "data" / name / "0.png").write_bytes(b"broken")
    ask = ("evaluate", "--server", server, "--model", "colour", "--data", tmp_path / "data")
    refused(csg(*ask), 3, r"0\.png")
    assert not list((tmp_path / "evaluations").iterdir())
    refused(csg(*ask, "--on-unreadable", "skip"), 3, "none of the 2 images of data can be read")
    refused(csg("evaluate", "page.html", "--server", server), 2, "what is 'page.html'", "--report")
