"""Exports of a run whose images are elsewhere, or nowhere."""

import json
import shutil
from pathlib import Path

import pytest

from csg.bundle import read_bundle
from csg.errors import InputError
from csg_export.export import export
from csg_export.options import ExportOptions
from csg_export.parity_images import HARD_INPUTS, ParityImages
from tests.helpers.cli import csg, refused
from tests.helpers.small_networks import SPEC
from tests.helpers.small_source import classifier, segmenter
from tests.unit.csg_export.conftest import write_images


@pytest.mark.slow
@pytest.mark.parametrize(
    "precision", ["fp32", pytest.param("fp16", marks=pytest.mark.slow), pytest.param("bf16", marks=pytest.mark.slow)]
)
def test_no_training_image_and_no_real_one_is_needed(moved, precision):
    done = csg("export", moved / "run", "--precision", precision, "--out", "bundle", "--json")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stderr.splitlines() if "hard inputs only" in line]
    assert str(moved / "real") in line
    assert "--real-data" in line
    parity = read_bundle(Path("bundle")).card.parity
    assert (parity.source, parity.images) == (HARD_INPUTS, 7)
    assert {stage.source for stage in parity.stages} == {HARD_INPUTS}
    assert (parity.tolerance is None) == (precision == "bf16"), "bf16 has to be finite there, and no more"
    shown = csg("export", "inspect", "bundle")
    assert "logits on hard inputs" in shown.stdout
    assert csg("deploy", "bundle", "--backend", "python").returncode == 0


@pytest.mark.slow
def test_images_that_moved_are_named(moved):
    options = ("--int8", "--out", "bundle", "--data", moved / "moved-data", "--real-data", moved / "moved-real")
    done = csg("export", moved / "run", *options, "--tolerance", 9)
    assert "hard inputs only" not in done.stderr
    if done.returncode == 0:
        card = read_bundle(Path("bundle")).card
        assert (card.parity.source, card.calibration.source) == ("moved-real", "moved-data")
    else:
        refused(done, 5, "int8 loses")  # one step has taught it nothing


def test_int8_names_the_option_for_its_training_images(moved):
    refused(csg("export", moved / "run", "--int8", "--out", "bundle"), 3, r"training images.*/data; .*--data")
    assert not Path("bundle").exists()


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (("--real-data", "other"), "the real images other are not those"),
        (("--int8", "--data", "other"), "the training images other are not those"),
        (("--real-data", "nowhere"), "nowhere"),
    ],
)
def test_other_images_are_refused(moved, options, says):
    words = [moved / word if word in ("other", "nowhere") else word for word in options]
    refused(csg("export", moved / "run", *words, "--out", "bundle"), 3, says)


@pytest.mark.slow
def test_real_images_that_changed_are_not_compared_on(moved, tmp_path):
    """The run's own folder holds others now: hard inputs alone, with a line."""
    run = shutil.copytree(moved / "run", tmp_path / "run")
    text = (run / "recipe.yaml").read_text().replace(str(moved / "real"), str(moved / "other"))
    (run / "recipe.yaml").write_text(text)
    done = csg("export", run, "--out", "bundle")
    assert done.returncode == 0, done.stderr
    assert "real images other are not those" in done.stderr
    assert read_bundle(Path("bundle")).card.parity.source == HARD_INPUTS


def test_images_that_cannot_be_read_are_counted(tmp_path, capsys):
    write_images(tmp_path / "real", 0, count=2)
    paths = tuple(sorted((tmp_path / "real").rglob("*.png")))
    paths[1].write_bytes(b"no image")
    source = classifier(real=ParityImages("real", SPEC, paths))
    bundle = export(source, ExportOptions(), tmp_path / "bundle")
    assert bundle.card.parity.images == 3
    assert "1 of 4 images of real were left out, the first because image" in capsys.readouterr().err


@pytest.mark.parametrize("make", [classifier, segmenter])
@pytest.mark.parametrize("kind", ["real", "training"])
def test_images_of_which_none_can_be_read_are_an_error(tmp_path, make, kind):
    (tmp_path / "a.png").write_bytes(b"no image")
    broken = ParityImages("broken", make().spec, (tmp_path / "a.png",))
    source = make(**({"real": broken} if kind == "real" else {"training": lambda: broken}))
    with pytest.raises(InputError, match=r"no image of broken can be read, the first because image .*a\.png"):
        export(source, ExportOptions("fp32" if kind == "real" else "int8"), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_int8_without_real_images_is_compared_on_training_images(tmp_path):
    bundle = export(classifier(real=None), ExportOptions("int8"), tmp_path / "bundle")
    assert json.loads(bundle.card.to_json())["parity"]["source"] == "noise"
