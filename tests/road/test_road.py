"""The whole road as a person walks it: five commands in an empty folder, with a real Triton at its end."""

import json

import onnx
import pytest

from csg.bundle import read_bundle
from csg_train.training.embed import measure_run
from csg_train.training.run_folder import Run
from tests.helpers.cli import FREE_PORTS, csg, csg_process

pytestmark = [pytest.mark.server, pytest.mark.slow]

SHORT = {
    "cls": (
        *("optim.max_steps=40", "data.count=600", "optim.batch=16", "model.freeze_batch_norm=true"),
        *("optim.lr_backbone=0.003", "optim.lr_heads=0.012"),
    ),
    "seg": ("optim.max_steps=4", "data.count=64", "optim.batch=4", "methods.csg.queue=512"),
}


@pytest.fixture(scope="module", params=["cls", "seg"])
def road(weights, tmp_path_factory, request):
    """The task, the folder, and what each command printed: its JSON object, and its first line of words."""
    folder, said = tmp_path_factory.mktemp("road"), {}

    def walk(*args, run=csg):
        done = run(*args, "--json", cwd=folder)
        assert done.returncode == 0, done.stderr
        said[args[0]] = json.loads(done.stdout), done.stderr.splitlines()[0]

    walk("train", request.param, *(word for setting in SHORT[request.param] for word in ("--set", setting)))
    walk("export", "--precision", "fp16")
    walk("deploy")
    walk("serve", "--detach", *FREE_PORTS, run=csg_process)
    try:
        walk("evaluate", "--server", said["serve"][0]["grpc"])
    finally:
        assert csg("serve", "--stop", cwd=folder).returncode == 0
    return request.param, folder, said


def test_each_command_says_first_what_it_took_by_default(road):
    task, _, said = road
    name = {"cls": "digits", "seg": "digit-scenes"}[task]
    first = {command: line for command, (_, line) in said.items()}
    assert f"recipe {name} (default)" in first["train"]
    assert f"runs/{task}/{name}-csg-1 (newest)" in first["export"]
    assert f"bundles/{name}-csg-1-fp16-1 (newest)" in first["deploy"]
    assert "model_repository/" in first["serve"]
    assert f"{name} (default)" in first["evaluate"]


def test_each_command_answers_scripts_with_the_promised_keys(road):
    task, _, said = road
    keys = {command: result.keys() for command, (result, _) in said.items()}
    assert {"run", "steps", "images_per_s", "real"} <= keys["train"]
    assert {"bundle", "precision", "format", "bytes", "parity"} == keys["export"]
    assert {"agreement", "max_abs_diff"} == said["export"][0]["parity"].keys()
    assert {"model", "version", "repository", "backend", "encoded"} == keys["deploy"]
    assert {"pid", "http", "grpc", "metrics"} == keys["serve"]
    always = {"model", "version", "images", "skipped", "per_class", "images_per_s"}
    scores = {"cls": {"accuracy", "mean_class_accuracy"}, "seg": {"miou", "pixel_accuracy"}}[task]
    assert always | scores <= keys["evaluate"]


def test_through_triton_it_is_the_students_own_score(road):
    """Half a point of accuracy apart at most, 0.2 of mIoU, on the same images; and better than chance."""
    task, folder, said = road
    served, own = said["evaluate"][0], said["train"][0]["real"]
    run = Run(folder / said["train"][0]["run"])
    _, again = measure_run(run)
    assert again.evaluation.model_dump() == own
    assert served["images"] == own["images"] == {"cls": 1797, "seg": 250}[task]
    if task == "cls":
        assert served["accuracy"] == pytest.approx(own["accuracy"], abs=0.005)
        assert served["mean_class_accuracy"] == pytest.approx(own["mean_class_accuracy"], abs=0.005)
        assert own["accuracy"] > 0.2
    else:
        assert served["miou"] == pytest.approx(own["miou"], abs=0.002)
        assert served["pixel_accuracy"] == pytest.approx(own["pixel_accuracy"], abs=0.005)
        assert all((folder / picture).is_file() for picture in served["pictures"])


def test_the_card_tells_the_whole_story(road):
    task, folder, said = road
    bundle = read_bundle(folder / said["export"][0]["bundle"])
    card = bundle.card
    assert card.provenance.method == "csg"
    assert card.provenance.steps == said["train"][0]["steps"]
    assert card.evaluations[0].model_dump() == said["train"][0]["real"]
    assert card.parity.images == {"cls": 512, "seg": 64}[task]
    outputs = {output.name: output.type.tensor_type for output in onnx.load(bundle.model).graph.output}
    assert list(outputs) == [{"cls": "logits", "seg": "label_map"}[task]]
    assert [d.dim_value for d in outputs.popitem()[1].shape.dim][1:] == {"cls": [10], "seg": [0, 0]}[task]
    if task == "seg":
        assert card.label_set == "digit-scenes"
        assert card.outputs[0].dtype == "UINT8"
