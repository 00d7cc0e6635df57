"""No command writes what the next one refuses: a command refuses with exit code 2 to 5, or the next one accepts."""

import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from csg.bundle import write_bundle
from csg.card import ModelCard
from csg.errors import CsgError, printable
from csg_export.precisions import PRECISIONS
from tests.helpers.cli import csg
from tests.helpers.evaluations import TIMES
from tests.helpers.small_server import in_a_process
from tests.helpers.tiny_bundle import COLOURS, write_colour_bundle

FAST = (
    *("optim.batch=2", "optim.max_steps=2", "model.backbone=mobilenet_v2", "model.weights=none", "data.workers=0"),
    *("optim.lr_backbone=1e-4", "optim.lr_heads=1e-4", "precision=fp32"),
    "model.freeze_batch_norm=true",  # two maps of one pixel have no deviation to divide by
)
SMALL = [word for setting in (*FAST, "data.size=32", "data.resize=32") for word in ("--set", setting)]
SCENES = [word for setting in (*FAST, "data.crop=[32, 32]") for word in ("--set", setting)]
NAMES = (
    *("a", "two words", " leading", "trailing ", "ends.", "-rf", "[red]bold", "<script>", "a,b", "a:b", "100%"),
    *("고양이", "e\u0301", "\U0001f408", "tab\there", "line\nbreak", "esc\x1b[31m", "\u202eback", "caf\udce9"),
    *("a'b\"c", "null", "1e999", "{}", "#", "~", "\u00a0", "\x7f", "a\u2028b", "x" * 200, "x" * 201),
)


def accepted(*words):
    """The output of a command, or None if it refuses; anything else is a defect."""
    done = csg(*words)
    assert done.returncode in (0, 2, 3, 4, 5), done.stderr
    lines = (done.stdout + done.stderr).split("\n")
    assert [line for line in lines if printable(line) != line] == []
    return None if done.returncode else done.stdout


def strict(text):
    """A JSON text without NaN and infinity."""
    return json.loads(text, parse_constant=lambda name: pytest.fail(name))


def must(*words):
    """The output of a command that has to accept what the one before it wrote."""
    done = csg(*words)
    assert done.returncode == 0, f"{words}: {done.stderr}"
    return done.stdout


def class_folders(folder, names, images=1, side=16):
    for number, name in enumerate(names):
        (folder / name).mkdir(parents=True)
        for image in range(images):
            pixels = np.random.default_rng(number + 9 * image).integers(0, 256, (side, side, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(folder / name / f"{image}.png")
    return folder


@pytest.fixture(scope="module")
def server():
    with in_a_process() as address:
        yield address


@settings(max_examples=8, suppress_health_check=list(HealthCheck), derandomize=True)
@given(
    names=st.lists(st.sampled_from(COLOURS), min_size=2, max_size=3, unique=True),
    kinds=st.lists(st.sampled_from(["image", "broken", "empty", "tiny", "grey"]), min_size=1, max_size=3),
    skip=st.booleans(),
)
def test_evaluations_are_resumed_and_reported(names, kinds, skip, server, tmp_path):
    shutil.rmtree(tmp_path / "d", ignore_errors=True)
    for name in names:
        (tmp_path / "d" / name).mkdir(parents=True)
        for number, kind in enumerate(kinds):
            file = tmp_path / "d" / name / f"{number}.png"
            side, mode = (1, "RGB") if kind == "tiny" else (20, "L" if kind == "grey" else "RGB")
            Image.new(mode, (side, side), 77).save(file)
            if kind in ("broken", "empty"):
                file.write_bytes(b"" if kind == "empty" else file.read_bytes()[:40])
    shutil.rmtree(tmp_path / "out", ignore_errors=True)
    ask = ("evaluate", "--server", server, "--json", "--out", tmp_path / "out")
    more = ("--on-unreadable", "skip") if skip else ()
    found = accepted(*ask, "--data", tmp_path / "d", *more)
    if found is None:
        assert not (tmp_path / "out" / "result.json").exists()
        return
    again = strict(must(*ask, "--resume", "--report"))
    same = TIMES | {"report"}
    assert {key: again[key] for key in again.keys() - same} == {key: strict(found)[key] for key in again.keys() - same}
    assert strict((tmp_path / "out" / "result.json").read_text()) == again


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_a_class_name_of_a_card_passes_every_stage(name, tmp_path):
    whole = write_colour_bundle(tmp_path / "bundle")
    try:
        tree = whole.card.model_dump() | {"classes": ("first", name, "last")}
        card = ModelCard.model_validate(tree)
    except (CsgError, ValueError):
        return
    bundle = write_bundle(tmp_path / "named", card, {"model.onnx": whole.model.read_bytes()})
    assert strict(must("export", "inspect", bundle.path, "--json"))["card"]["classes"] == list(card.classes)
    must("export", "inspect", bundle.path)
    must("deploy", bundle.path, "--repository", tmp_path / "repository", "--json")
    must("deploy", bundle.path, "--repository", tmp_path / "repository")
    must("deploy", "--rollback", "--repository", tmp_path / "repository")


def trained(task, data, real, out, more):
    """A finished run that `csg embed` takes and whose classes a card takes, or None if the training is refused."""
    real = ("--real-data", real) if real else ()
    found = accepted("train", task, "--method", "none", *more, "--data", data, *real, "--out", out, "--json")
    if found is None:
        assert not (out / "result.json").exists()
        return None
    assert strict(found) == strict((out / "result.json").read_text())
    strict(must("embed", out, "--data", data, "--out", out.parent / "e.npz", "--json"))
    must("train", task, "--resume", "--out", out)
    return out


def test_a_run_is_taken_by_embed_whatever_its_classes_are_called(tmp_path):
    """All names at once if they can be classes of a card, and each of the others alone, which has to be refused."""
    whole = write_colour_bundle(tmp_path / "bundle")
    good, bad = ["first"], []
    for name in NAMES:
        try:
            ModelCard.model_validate(whole.card.model_dump() | {"classes": ("a", "b", name)})
            good.append(name)
        except ValueError:
            bad.append(name)
    assert len(good) > 10
    data = class_folders(tmp_path / "good", good)
    assert trained("cls", data, data, tmp_path / "run", SMALL)
    for number, name in enumerate(bad):
        data = class_folders(tmp_path / f"bad{number}", ["first", name])
        assert trained("cls", data, None, tmp_path / f"run{number}", SMALL) is None, f"{name!r} is trained"


@pytest.mark.parametrize("images", [1, 2])
def test_a_run_on_two_classes_is_taken_by_embed(images, tmp_path):
    data = class_folders(tmp_path / "data", ["a", "b"], images)
    (data / "a" / "broken.png").write_bytes(b"broken")
    trained("cls", data, data, tmp_path / "run", [*SMALL, "--set", "data.on_unreadable=skip"])


MASKS = {
    "whole": lambda shape: np.random.default_rng(0).choice([7, 8, 11], shape),
    "ignored": lambda shape: np.full(shape, 255),
    "one pixel": lambda shape: np.where(np.arange(shape[0] * shape[1]).reshape(shape), 255, 7),
    "one class": lambda shape: np.full(shape, 7),
    "not in the set": lambda shape: np.full(shape, 77),
}


def scenes(folder, kind, side=48, count=2):
    for part in ("images", "labels"):
        (folder / part).mkdir(parents=True)
    for number in range(count):
        pixels = np.random.default_rng(number).integers(0, 256, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{number}.png")
        Image.fromarray(MASKS[kind]((side, side)).astype(np.uint8)).save(folder / "labels" / f"{number}.png")
    return folder


@pytest.mark.parametrize(
    ("kind", "real", "side"),
    [
        ("whole", "ignored", 48),
        ("one pixel", "one class", 33),
        pytest.param("whole", "one pixel", 48, marks=pytest.mark.slow),
        pytest.param("ignored", "whole", 48, marks=pytest.mark.slow),
        *(pytest.param(*pair, 8, marks=pytest.mark.slow) for pair in zip(MASKS, reversed(MASKS), strict=True)),
    ],
)
def test_a_segmenter_is_taken_by_embed(kind, real, side, tmp_path):
    data, real = scenes(tmp_path / "data", kind, side), scenes(tmp_path / "real", real, side)
    trained("seg", data, real, tmp_path / "run", ["--recipe", "gta5", *SCENES])


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["digits", "digit-scenes"])
def test_written_data_is_trained_on(kind, tmp_path):
    must("data", "synth", tmp_path / "data", "--kind", kind, "--count", 10)
    task, more = ("cls", SMALL) if kind == "digits" else ("seg", [*SCENES, "--recipe", kind])
    assert trained(task, tmp_path / "data", None, tmp_path / "run", more)


@pytest.mark.slow
@pytest.mark.parametrize("task", ["cls", "seg"])
def test_a_run_is_exported_inspected_and_deployed(task, tmp_path, monkeypatch):
    row = replace(PRECISIONS["int8"], max_score_loss=1, aimed_score_loss=1)  # nothing is repaired, which takes a minute
    monkeypatch.setitem(PRECISIONS, "int8", row)
    if task == "cls":
        data = class_folders(tmp_path / "data", ["[red] <b>", "고양이"], side=33)
        run = trained("cls", data, data, tmp_path / "run", SMALL)
    else:
        data = scenes(tmp_path / "data", "whole")
        run = trained(
            "seg", data, scenes(tmp_path / "real", "one pixel"), tmp_path / "run", ["--recipe", "gta5", *SCENES]
        )
    assert run is not None
    for precision in ("fp32", "int8"):
        if accepted("export", run, "--precision", precision, "--out", tmp_path / precision, "--json") is not None:
            strict(must("export", "inspect", tmp_path / precision, "--json"))
            must("deploy", tmp_path / precision, "--repository", tmp_path / "repository")


@pytest.mark.slow
def test_a_comparison_is_continued(tmp_path):
    data = class_folders(tmp_path / "data", ["[red]", "고양이"], images=2)
    ask = ("compare", "cls", "--no-tune", "--data", data, "--real-data", data, "--out", tmp_path / "out", "--json")
    ask = (*ask, *SMALL, "--method", "none")
    first = strict(must(*ask, "--seeds", "1"))
    assert strict(must(*ask, "--seeds", "1")) == first
    assert strict(must(*ask, "--seeds", "2"))["rows"][0] == first["rows"][0]
