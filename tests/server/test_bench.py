"""`csg bench` against a real Triton: it counts what the server counts, and LoadGen's accuracy is that of evaluate."""

import json
import subprocess
import sys
from types import SimpleNamespace

import pytest
from PIL import Image

from tests.helpers.cli import csg, refused
from tests.helpers.served import deploy, serving
from tests.helpers.tiny_bundle import COLOURS, write_colour_bundle

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A repository with the model colour, and 40 images, every fifth in the folder of another colour."""
    root = tmp_path_factory.mktemp("bench")
    write_colour_bundle(root / "bundle")
    deploy(root / "bundle", root / "repository", "--no-encoded")
    for number in range(40):
        label = number % 3 if number % 5 else (number + 1) % 3
        (root / "data" / COLOURS[label]).mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (40, 40), COLOURS[number % 3]).save(root / "data" / COLOURS[label] / f"{number}.png")
    return root


@pytest.fixture(scope="module")
def server(folder):
    with serving(folder / "repository") as state:
        yield state["grpc"]


def test_load_points(folder, server):
    out = folder / "load-points"
    done = csg(
        "bench", "--server", server, "--concurrency", "1,6", "--batch", 2, "--seconds", 1, "--out", out, "--json"
    )
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    assert report == json.loads((out / "bench.json").read_text())
    assert Image.open(out / "bench.png").width > 1000
    assert [point["concurrency"] for point in report["load_points"]] == [1, 6]
    for point in report["load_points"]:
        assert point["images_per_s"] > 0
        assert 0 < point["p50_ms"] <= point["p90_ms"] <= point["p99_ms"]
        assert point["queue_ms"] > 0
        assert point["compute_ms"] > 0
        assert point["client_cores"] > 0
    alone, together = report["load_points"]
    assert alone["batch"] == 2
    assert together["batch"] > 2
    refused(csg("bench", "--server", server, "--out", out), 2, "exists already")


def test_requests_are_those_that_the_server_counted(folder, server):
    def counted():
        return json.loads(csg("models", "--server", server, "--json").stdout)["models"][0]

    before, out = counted(), folder / "counted"
    options = ("--concurrency", "3", "--batch", 4, "--seconds", 0.5, "--data", folder / "data", "--out", out)
    report = json.loads(csg("bench", "--server", server, *options, "--json").stdout)
    after, (point,) = counted(), report["load_points"]
    requests = after["requests"] - before["requests"]
    assert report["data"] == "data"
    assert after["images"] - before["images"] == 4 * requests
    assert point["requests"] < requests, "the warm-up does not count"


def test_loadgen_accuracy_is_that_of_evaluate(folder, server):
    data, out = ("--data", folder / "data"), folder / "scenarios"
    scenarios = [word for name in ("single-stream", "server", "offline") for word in ("--scenario", name)]
    done = csg(
        "bench", "--server", server, *data, *scenarios, "--accuracy", "--qps", 40, "--batch", 3,
        "--seconds", 0.5, "--out", out, "--json",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    found = {(one["scenario"], one["mode"]): one for one in json.loads(done.stdout)["scenarios"]}
    assert len(found) == 6
    expected = json.loads(csg("evaluate", "--server", server, *data, "--json").stdout)
    assert expected["accuracy"] == pytest.approx(0.8)
    for (scenario, mode), one in found.items():
        assert (out / one["logs"] / "mlperf_log_summary.txt").exists()
        if mode == "accuracy":
            assert one["queries"] == 40
            assert (one["accuracy"], one["mean_class_accuracy"]) == pytest.approx(
                (expected["accuracy"], expected["mean_class_accuracy"])
            )
        else:
            assert one["samples_per_s"] > 0
            assert one["valid"] in (True, False)
            assert one["latency_ms"]["50.00"] <= one["latency_ms"]["99.00"]
            assert one["target_qps"] == (40 if scenario == "server" else None)


def test_an_unreadable_image_is_named(folder, server):
    for name in ("red", "green"):
        (folder / "broken" / name).mkdir(parents=True)
        Image.new("RGB", (40, 40), name).save(folder / "broken" / name / "a.png")
    (folder / "broken" / "red" / "a.png").write_bytes(b"\x89PNG")
    options = ("--data", folder / "broken", "--seconds", 0.5, "--out", folder / "none")
    refused(csg("bench", "--server", server, *options, "--scenario", "offline"), 3, r"red/a\.png")
    assert not (folder / "none").exists()


def test_invalid_options_are_refused(folder, server):
    refused(csg("bench", "--server", server, "--batch", 100), 2, "at most 32")
    refused(csg("bench", "--server", server, "--concurrency", "0"), 2, "not a list of numbers")
    refused(csg("bench", "--server", server, "--scenario", "cloud"), 2, "unknown scenario 'cloud'", "single-stream")
    refused(csg("bench", "--server", server, "--accuracy"), 2, "--scenario")


@pytest.mark.slow
def test_a_scenario_ends_when_its_server_goes_away(folder, server):
    """The last test to use the server."""
    options = ("--scenario", "single-stream", "--seconds", "8", "--out", str(folder / "gone"))
    command = [sys.executable, "-m", "csg", "bench", "--server", server, *options]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        assert "images/s" in process.stderr.readline()
        assert csg("serve", "--repository", folder / "repository", "--stop").returncode == 0
        out, err = process.communicate()
    refused(SimpleNamespace(returncode=process.returncode, stdout=out, stderr=err), 4, "did not answer", "see its log")
    assert not (folder / "gone").exists()
