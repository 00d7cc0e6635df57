"""Layouts that people have, through the commands: what was read is what is trained and measured, and is said."""

import json
import unicodedata
from pathlib import Path

import numpy as np

from tests.helpers.cli import csg, refused
from tests.helpers.small_runs import noisy_images, settings


def trained(*words, code=0):
    done = csg("train", "cls", *settings(), "--out", "run", *words)
    assert done.returncode == code, done.stderr
    return done


def test_a_real_set_may_lack_a_class_in_every_command():
    noisy_images(Path("synthetic"), classes=("bird", "cat", "dog"))
    noisy_images(Path("real"), classes=("cat", "dog"))
    done = trained("--data", "synthetic", "--real-data", "real")
    assert "real: no image of class bird" in done.stderr
    scores = json.loads(Path("run/result.json").read_text())["real"]
    done = csg("embed", "run", "--out", "of.npz")
    assert "real: no image of class bird" in done.stderr
    embedded = np.load("of.npz")
    right = embedded["labels"] == embedded["predicted"]
    assert set(embedded["labels"]) == {1, 2}
    assert np.isclose(scores["mean_class_accuracy"], np.mean([right[embedded["labels"] == k].mean() for k in (1, 2)]))
    noisy_images(Path("other"), classes=("cat", "wolf"))
    refused(csg("embed", "run", "--data", "other"), 3, "only in other: wolf")


def test_names_that_a_bundle_could_not_hold_fail_before_the_training():
    noisy_images(Path("data"), classes=("cat\nblack", "dog"))
    done = csg("train", "cls", *settings(), "--data", "data", "--out", "run")
    refused(done, 3, r"cat\\nblack: a class name holds a line break")
    assert not Path("run").exists()


def test_a_model_takes_decomposed_names_for_its_composed_ones():
    composed, decomposed = (unicodedata.normalize(form, "고양이") for form in ("NFC", "NFD"))
    noisy_images(Path("synthetic"), classes=("dog", decomposed))
    noisy_images(Path("real"), classes=("dog", composed))
    trained("--data", "synthetic", "--real-data", "real")
    assert json.loads(Path("run/environment.json").read_text())["classes"] == ["dog", composed]


def test_a_run_names_its_data_as_they_were_given():
    noisy_images(Path("store/v1"))
    Path("data").symlink_to("store/v1")
    trained("--data", "data", "--real-data", "data")
    recipe = Path("run/recipe.yaml").read_text()
    assert str(Path("data").absolute()) in recipe
    assert "store" not in recipe


def test_a_list_of_numbers_is_read_in_the_order_of_the_classes_and_this_is_said():
    noisy_images(Path("synthetic"))
    noisy_images(Path("flat"), classes=("images",))
    Path("flat/test.txt").write_text("\ufeffimages/0.png\t1\r\nimages/1.png\t0\r\n")
    done = trained("--data", "synthetic", "--real-data", "flat/test.txt")
    assert "test: labels are numbers: 0 is cat, 1 is dog" in done.stderr
