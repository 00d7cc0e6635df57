"""Runs that were damaged on their way: one line and exit code 3 or 5, from export and from embed."""

import json
import shutil

import pytest
import yaml
from safetensors.torch import load_file, save_file

from tests.helpers.cli import csg, refused

RECIPE, ENVIRONMENT, RESULT, STUDENT = "recipe.yaml", "environment.json", "result.json", "student.safetensors"
CONTENT = {
    "empty": b"",
    "random": bytes(range(256)),
    "null": b"null",
    "list": b"[1, 2]",
    "number": b"9" * 40,
    "deep": b"[" * 5000,
    "not UTF-8": b"\xff\xfe\xed\xa0\x80",
}


@pytest.fixture
def run(moved, tmp_path):
    return shutil.copytree(moved / "run", tmp_path / "run")


def refused_by_both(run, moved):
    refused(csg("export", run, "--out", "bundle"), 3)
    refused(csg("embed", run, "--data", moved / "moved-real", "--out", "e.npz"), 3)
    assert sorted(path.name for path in run.parent.iterdir()) == ["run"], "nothing is written"


@pytest.mark.slow
@pytest.mark.parametrize("file", [RECIPE, ENVIRONMENT, RESULT, STUDENT])
def test_a_file_that_is_none_is_refused(run, moved, file):
    whole = (run / file).read_bytes()
    for content in (*CONTENT.values(), whole[:1], whole[: len(whole) // 2]):
        (run / file).write_bytes(content)
        refused_by_both(run, moved)
    (run / file).unlink()
    refused_by_both(run, moved)
    (run / file).mkdir()
    refused_by_both(run, moved)


@pytest.mark.parametrize(
    ("file", "field", "value"),
    [
        (RECIPE, "data.size", 10**9),
        (RECIPE, "data.resize", -1),
        (RECIPE, "model.backbone", "resnet18"),
        (RECIPE, "task", "seg"),
        (RECIPE, "name", "../outside"),
        (ENVIRONMENT, "classes", ["cat"]),
        (ENVIRONMENT, "classes", ["cat", "do\ng"]),
        (ENVIRONMENT, "classes", ["cat", "dog", "cow"]),
        (ENVIRONMENT, "data_fingerprint", None),
        (ENVIRONMENT, "version", 99),
        (RESULT, "steps", "many"),
        (RESULT, "real.accuracy", float("nan")),
        (RESULT, "real.images", 1e300),
    ],
)
def test_a_field_of_another_kind_is_refused(run, moved, file, field, value):
    tree = yaml.safe_load((run / file).read_text())
    *parents, last = field.split(".")
    place = tree
    for name in parents:
        place = place[name]
    place[last] = value
    (run / file).write_text(json.dumps(tree))
    refused(csg("export", run, "--out", "bundle"), 3)
    assert not (run.parent / "bundle").exists()


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_no_numbers_are_refused(run, moved, value):
    state = load_file(run / STUDENT)
    next(tensor for tensor in state.values() if tensor.dim() == 4).view(-1)[0] = value
    save_file(state, run / STUDENT)
    refused_by_both(run, moved)


def test_a_student_of_another_shape_is_refused(run, moved):
    save_file({name: tensor.flatten()[:1].clone() for name, tensor in load_file(run / STUDENT).items()}, run / STUDENT)
    refused_by_both(run, moved)
