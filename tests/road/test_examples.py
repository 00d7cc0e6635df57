"""The examples do what they say."""

import json
import subprocess
import sys

import pytest
from PIL import Image

from csg_train.training.run_folder import Run
from tests.conftest import ROOT
from tests.helpers.cli import csg
from tests.helpers.served import deploy, serving
from tests.helpers.tiny_bundle import write_colour_bundle

EXAMPLES = ROOT / "examples"


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    """Addresses of a server with the model colour and its encoded model."""
    folder = tmp_path_factory.mktemp("examples")
    deploy(write_colour_bundle(folder / "bundle").path, folder / "repository", "--instances", 1)
    with serving(folder / "repository") as state:
        yield state


@pytest.fixture
def images(tmp_path):
    for name, colour in (("cherry.png", (250, 9, 3)), ("meadow.jpg", (10, 200, 30))):
        Image.new("RGB", (40, 30), colour).save(tmp_path / name)
    return tmp_path


def run(*command):
    done = subprocess.run([str(word) for word in command], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.server
def test_predict(server, images):
    printed = run(sys.executable, EXAMPLES / "predict.py", server["grpc"], images)
    assert [line.split("\t")[:2] for line in printed.splitlines()] == [["cherry.png", "red"], ["meadow.jpg", "green"]]


@pytest.mark.server
def test_async_stream_skips_what_is_no_image(server, images):
    (images / "broken.png").write_bytes(b"no image")
    first, *rest = run(sys.executable, EXAMPLES / "async_stream.py", server["grpc"], images).splitlines()
    assert first.startswith("broken.png\tskipped: ")
    assert rest == ["cherry.png\tred", "meadow.jpg\tgreen"]


@pytest.mark.server
def test_http_request(server, images):
    answer = json.loads(
        run("bash", EXAMPLES / "http_request.sh", f"http://{server['http']}", "colour", images / "meadow.jpg")
    )
    outputs = {output["name"]: output["data"] for output in answer["outputs"]}
    assert outputs["error"] == [""]
    assert outputs["logits"][0].endswith(":1")  # green


@pytest.mark.slow
def test_own_recipe_trains(weights, tmp_path):
    settings = ("data.count=64", "optim.batch=16", "optim.max_steps=2", "precision=fp32", "data.workers=0")
    tiny = [word for setting in settings for word in ("--set", setting)]
    done = csg("train", "cls", "--recipe", EXAMPLES / "own_recipe.yaml", *tiny, "--out", "run", "--json")
    assert done.returncode == 0, done.stderr
    assert Run(tmp_path / "run").recipe().name == "own"
