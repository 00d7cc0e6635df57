"""A real Triton, from the command line: what comes through it, what goes wrong, and that nothing stays behind."""

import asyncio
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csg.bundle import write_bundle
from csg.errors import InputError
from csg.images import load
from csg_serve.client.client import Client
from csg_serve.client.connection import open_model
from csg_serve.client.stream import stream
from tests.helpers.cli import FREE_PORTS, csg, refused
from tests.helpers.served import deploy, processes_of, serving
from tests.helpers.tiny_bundle import (
    write_colour_bundle,
    write_echo_bundle,
    write_unloadable_bundle,
    write_worse_bundle,
    write_wrong_bundle,
)

pytestmark = pytest.mark.server


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Bundles, solid colours as class folders, and a repository with the models colour and echo."""
    root = tmp_path_factory.mktemp("serve")
    write_colour_bundle(root / "bundles" / "colour")
    write_echo_bundle(root / "bundles" / "echo")
    for name, colour in (("red", (250, 9, 3)), ("green", (10, 200, 30)), ("blue", (0, 20, 180))):
        (root / "colours" / name).mkdir(parents=True)
        for number in range(9):
            Image.new("RGB", (30 + 7 * number, 50), colour).save(root / "colours" / name / f"{number}.png")
    for name in ("colour", "echo"):
        deploy(root / "bundles" / name, root / "repository", "--no-encoded", "--instances", 1)
    return root


@pytest.fixture(scope="module")
def server(folder):
    """gRPC address of a Triton on the repository."""
    repository = folder / "repository"
    with serving(repository) as state:
        yield state["grpc"]
        region = json.loads((repository / ".csg-serve.json").read_text())["token"]
        assert processes_of(repository)
    assert not list(repository.rglob("*.pyc"))  # a polling server would load the model again
    assert not processes_of(repository)
    assert not list(Path("/dev/shm").glob(f"{region}*"))
    refused(csg("serve", "--stop", "--repository", repository), 4, "no server runs on")


def test_every_colour_is_right_through_the_server(folder, server):
    done = csg("evaluate", "--server", server, "--model", "colour", "--data", folder / "colours", "--json")
    assert done.returncode == 0, done.stderr
    report = json.loads(done.stdout)
    for name in ("images_per_s", "latency_ms", "folder"):
        assert report.pop(name)
    intervals = [report.pop(f"{name}_interval") for name in ("accuracy", "mean_class_accuracy")]
    assert intervals == [[pytest.approx(0.875, abs=1e-3), 1], [1, 1]]
    assert 0 <= report.pop("ece") < 1e-3
    assert report == {
        "schema_version": 1, "task": "classification", "report": None, "model": "colour", "version": 1,
        "images": 27, "skipped": 0, "accuracy": 1.0, "mean_class_accuracy": 1.0,
        "per_class": {"red": 1.0, "green": 1.0, "blue": 1.0}, "mirrored": None, "bundle": None,
        "against": None,
    }  # fmt: skip


def test_a_list_file_and_its_wrong_labels_are_believed(folder, server):
    """One image in three is labelled wrong on purpose: the measurement follows the file."""
    lines = [f"{name}/{n}.png {label}" for label, name in enumerate(("red", "green", "blue")) for n in range(3)]
    (folder / "colours" / "list.txt").write_text("\n".join(lines))
    report = csg(
        "evaluate", "--server", server, "--model", "colour", "--data", folder / "colours" / "list.txt", "--json"
    )
    assert json.loads(report.stdout)["images"] == 9
    mixed = folder / "mixed"
    for name in ("red", "green", "blue"):
        (mixed / name).mkdir(parents=True)
        for number, shown in enumerate((name, name, "red")):
            source = folder / "colours" / shown / f"{number}.png"
            (mixed / name / f"{number}.png").write_bytes(source.read_bytes())
    report = json.loads(csg("evaluate", "--server", server, "--model", "colour", "--data", mixed, "--json").stdout)
    assert report["accuracy"] == pytest.approx(7 / 9)
    assert report["per_class"] == pytest.approx({"red": 1.0, "green": 2 / 3, "blue": 2 / 3})


def test_the_pixels_that_arrive_are_those_that_were_prepared(tmp_path, server):
    """Bit for bit, for every kind of file: the echo model answers with the pixels it got."""
    rng, paths = np.random.default_rng(0), []
    for number, (mode, channels) in enumerate((("RGB", 3), ("L", 1), ("RGBA", 4), ("RGB", 3), ("RGB", 3)) * 3):
        size = rng.integers(1, 90, 2)
        pixels = rng.integers(0, 256, (*size, channels), dtype=np.uint8).squeeze(-1 if channels == 1 else ())
        image = Image.fromarray(pixels, mode)
        exif = Image.Exif()
        exif[0x0112] = 6
        kind = ("png", "png", "png", "jpg", "webp")[number % 5]
        paths.append(tmp_path / f"{number}.{kind}")
        image.save(paths[-1], **({"exif": exif} if kind == "jpg" else {}))

    async def echoed():
        async with open_model(server, "echo") as served:
            return served.card.input, [answer async for answer in stream(served, paths)]

    spec, answers = asyncio.run(echoed())
    assert len(answers) == len(paths) == 15
    for path, answer in zip(paths, answers, strict=True):
        np.testing.assert_array_equal(answer, load(path, spec).reshape(-1).astype(np.float32))


def test_predict_names_the_class(folder, server):
    images = [folder / "colours" / name / "0.png" for name in ("blue", "red")]
    done = csg("predict", *images, "--server", server, "--model", "colour", "--json")
    predictions = json.loads(done.stdout)["predictions"]
    assert [one["class"] for one in predictions] == ["blue", "red"]
    assert all(0.99 < one["confidence"] <= 1 for one in predictions)
    refused(csg("predict", folder / "no.png", "--server", server, "--model", "colour"), 3, r"no\.png")


def test_python_gets_the_same_in_a_few_lines(folder, server):
    client = Client(server, "colour")
    blue, red = client.predict([folder / "colours" / "blue" / "0.png", str(folder / "colours" / "red" / "0.png")])
    assert (blue.label, red.label) == ("blue", "red")
    assert blue.probabilities.sum() == pytest.approx(1)
    with pytest.raises(InputError, match=r"no\.png"):
        client.predict([folder / "no.png"])


def test_a_broken_image_is_named_or_left_out(tmp_path, server):
    for name in ("red", "green", "blue"):
        (tmp_path / "data" / name).mkdir(parents=True)
        Image.new("RGB", (40, 40), name).save(tmp_path / "data" / name / "a.png")
    (tmp_path / "data" / "red" / "broken.png").write_bytes(b"\x89PNG")
    evaluate = ("evaluate", "--server", server, "--model", "colour", "--data", tmp_path / "data")
    refused(csg(*evaluate), 3, r"red/broken\.png", "--on-unreadable skip")
    report = json.loads(csg(*evaluate, "--on-unreadable", "skip", "--json").stdout)
    assert (report["images"], report["skipped"], report["accuracy"]) == (3, 1, 1.0)


def test_which_model_must_be_clear(folder, server):
    colours = ("--data", folder / "colours")
    refused(csg("evaluate", "--server", server, *colours), 2, "several csg models: colour, echo", "--model")
    refused(
        csg("evaluate", "--server", server, *colours, "--model", "nothing"), 4, "no model nothing", "colour, .*echo"
    )
    refused(csg("evaluate", "--server", server, *colours, "--model", "../x"), 2, "invalid model name")
    refused(csg("evaluate", "--server", server, "--model", "colour"), 3, "classes differ")


@pytest.mark.slow
def test_a_new_version_goes_live_and_a_broken_one_never_does(folder, server):
    repository = ("--repository", folder / "repository")
    assert "version 2 is in" in csg("deploy", folder / "bundles" / "colour", *repository).stderr
    evaluate = ("evaluate", "--server", server, "--model", "colour", "--data", folder / "colours", "--json")
    assert json.loads(csg(*evaluate).stdout)["version"] == 2
    write_unloadable_bundle(folder / "bundles" / "broken", write_colour_bundle(folder / "bundles" / "whole"))
    refused(
        csg("deploy", folder / "bundles" / "broken", *repository), 4, "colour version 3 does not load", "stays live"
    )
    write_wrong_bundle(folder / "bundles" / "wrong")
    wrong = csg("deploy", folder / "bundles" / "wrong", *repository)
    refused(wrong, 5, r"colour version 4 answers wrongly: a logit of noise 0 differs .* allowed\); .* stays live")
    report = json.loads(csg(*evaluate).stdout)
    assert (report["version"], report["accuracy"]) == (2, 1.0)
    refused(
        csg("deploy", "--rollback", "--no-encoded", *repository), 2, "combined with --encoded", "as it was deployed"
    )
    back = csg("deploy", "--rollback", "--name", "colour", *repository, "--json")
    assert (back.returncode, json.loads(back.stdout)["version"]) == (0, 1)
    assert json.loads(csg(*evaluate).stdout)["version"] == 1


def test_an_fp16_bundle_is_computed_in_fp32_on_a_cpu(folder, server):
    plain = write_colour_bundle(folder / "bundles" / "plain")
    card = plain.card.model_copy(update={"compute_type": "fp16"})
    half = write_bundle(folder / "bundles" / "fp16", card, {"model.onnx": plain.model.read_bytes()}, plain.golden)
    repository = ("--repository", folder / "repository")
    done = csg("deploy", half.path, "--device", "cpu", "--name", "half", "--no-encoded", *repository)
    assert done.returncode == 0, done.stderr
    assert "fp16 on a CPU: the server computes it in fp32" in done.stderr
    assert "half_0_0: fp16 is computed in fp32 on this CPU" in (folder / "repository" / ".csg-serve.log").read_text()
    assert csg("evaluate", "--server", server, "--model", "half", "--data", folder / "colours").returncode == 0
    shutil.rmtree(folder / "repository" / "half")


@pytest.mark.parametrize("instances", [pytest.param(1, marks=pytest.mark.slow), 2])
def test_a_bf16_bundle_is_computed_by_openvino(folder, server, instances):
    """An instance with several threads shares a batch out among them."""
    plain = write_colour_bundle(folder / "bundles" / f"plain-{instances}")
    card = plain.card.model_copy(update={"runtime": "openvino", "compute_type": "bf16"})
    bundle = write_bundle(folder / "bundles" / f"bf16-{instances}", card, {"model.onnx": plain.model.read_bytes()})
    repository = ("--repository", folder / "repository")
    assert csg("deploy", bundle.path, "--instances", instances, *repository).returncode == 0
    done = csg("evaluate", "--server", server, "--model", "colour", "--data", folder / "colours", "--json")
    assert json.loads(done.stdout)["accuracy"] == 1.0
    stubs = [p for p in processes_of(folder / "repository") if "stub" in " ".join(p.cmdline())]
    assert any("openvino" in one.path for stub in stubs for one in stub.memory_maps())
    assert csg("deploy", "--rollback", "--version", 1, "--name", "colour", *repository).returncode == 0


def test_the_models_of_a_server_and_what_they_did(folder, server):
    csg("evaluate", "--server", server, "--model", "colour", "--data", folder / "colours")
    done = csg("models", "--server", server, "--json")
    found = {(one["model"], one["state"]): one for one in json.loads(done.stdout)["models"]}
    colour, echo = found["colour", "READY"], found["echo", "READY"]
    assert colour["images"] >= colour["requests"] >= colour["executions"] > 0
    assert colour["queue_ms"] > 0
    assert colour["compute_ms"] > 0
    assert (echo["failed"], echo["version"]) == (0, 1)
    shown = csg("models", "--server", server).stdout
    assert "READY" in shown
    refused(csg("models", "--server", "localhost"), 2, "HOST:PORT")


def test_one_server_a_repository(folder, server):
    refused(csg("serve", "--repository", folder / "repository", *FREE_PORTS), 4, "already runs on", "--stop")


@pytest.mark.slow
def test_a_better_bundle_goes_live_on_a_running_server_and_what_is_not_better_does_not(folder, server, tmp_path):
    worse, colours = write_worse_bundle(tmp_path / "worse"), folder / "colours"
    judged = ("--repository", folder / "repository", "--name", "judged", "--no-encoded")
    better = (*judged, "--only-if-better", "--data", colours)
    deploy(worse.path, folder / "repository", *judged[2:])
    asked = ("evaluate", "--server", server, "--model", "judged", "--data", colours, "--json")
    done = csg(*asked, "--against", "colour", "--require", "not-worse", cwd=tmp_path)
    assert done.returncode == 5
    assert json.loads(done.stdout)["against"]["paired"]["only_a_right"] == 18
    done = csg("deploy", folder / "bundles" / "colour", *better, cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    refused(
        csg("deploy", folder / "bundles" / "colour", *better, cwd=tmp_path), 5, "version 2 of judged, which stays live"
    )
    report = json.loads(csg(*asked, "--against", "colour", "--require", "not-worse", cwd=tmp_path).stdout)
    assert (report["version"], report["accuracy"], report["against"]["requirement"]["met"]) == (2, 1, True)
