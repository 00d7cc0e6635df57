"""A recipe and a label set of one's own, by the steps of docs/how-to."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from csg.card import ClassSpec
from csg.datasets.label_sets import class_map, read_label_set
from csg.datasets.segmentation import read_segmentation_dataset
from csg_train.training.run_folder import Run
from tests.conftest import ROOT
from tests.helpers.cli import csg
from tests.helpers.pages import blocks, commands

TINY = ("optim.batch=4", "optim.max_steps=2", "precision=fp32", "data.workers=0")
SET = [word for setting in TINY for word in ("--set", setting)]


def write_images(folder, count, size):
    folder.mkdir(parents=True)
    rng = np.random.default_rng(0)
    for number in range(count):
        pixels = rng.integers(0, 256, (size, size, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{number:04d}.png")


def with_file_in(package, file, folder, statement):
    """Take the last step of a page, in a copy of the package: put the file there, and use it by its name."""
    shutil.copytree(ROOT / package.partition("/")[0], folder / package.partition("/")[0])
    if package.startswith("csg_train"):
        shutil.copytree(ROOT / "csg", folder / "csg")
    shutil.copy(file, folder / package)
    done = subprocess.run([sys.executable, "-c", statement], capture_output=True, text=True, cwd=folder, env={})
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.slow
def test_a_recipe_is_one_file(weights, tmp_path):
    page = "how-to/recipe.md"
    (recipe,) = blocks(page, "yaml")
    (tmp_path / "photos.yaml").write_text(recipe)
    for kind in ("synthetic", "photos"):
        for name in ("cat", "dog"):
            write_images(tmp_path / kind / name, count=4, size=80)
    first, changed, by_name, *_ = commands(page)
    for command, method in ((first, "csg"), (changed, "simclr")):
        done = csg(*command, *SET, "--json")
        assert done.returncode == 0, done.stderr
        assert json.loads(done.stdout)["run"].startswith(f"runs/cls/photos-{method}")
    assert by_name == ["train", "cls", "--recipe", "photos"]
    statement = "from csg_train.recipe.load import load_recipe; print(load_recipe('photos').name)"
    assert with_file_in("csg_train/recipe", tmp_path / "photos.yaml", tmp_path / "copy", statement) == "photos"


@pytest.mark.slow
def test_a_label_set_is_one_file(weights, tmp_path):
    page = "how-to/dataset.md"
    (streets,) = blocks(page, "yaml")
    (tmp_path / "streets.yaml").write_text(streets)
    write_images(tmp_path / "streets" / "images", count=4, size=128)
    (tmp_path / "streets" / "labels").mkdir()
    for number in range(4):
        mask = np.random.default_rng(number).integers(0, 5, (128, 128), np.uint8)
        Image.fromarray(mask).save(tmp_path / "streets" / "labels" / f"{number:04d}.png")
    train, evaluate, by_name = commands(page)
    small = ["--method", "none", "--set", "model.backbone=mobilenet_v2", "--set", "data.crop=[64,64]", *SET, "--json"]
    done = csg(*train, *small)
    assert done.returncode == 0, done.stderr
    run = tmp_path / json.loads(done.stdout)["run"]
    assert Run(run).class_spec().names == ("street", "building", "car")
    assert evaluate == ["evaluate", "--data", "streets", "--labels", "streets.yaml"]
    cityscapes = read_label_set("cityscapes19")
    model = ClassSpec(cityscapes.names, cityscapes.name, cityscapes.colours)
    assert class_map(model, read_label_set("streets.yaml"))["sidewalk"] == "street"
    (tmp_path / "streets.yaml").rename(tmp_path / "streets" / "labels.yaml")
    assert read_segmentation_dataset(["streets"]).labels.name == "streets"
    assert by_name[-1] == "streets"
    shutil.copy(tmp_path / "streets" / "labels.yaml", tmp_path / "streets.yaml")
    statement = "from csg.datasets.label_sets import read_label_set; print(read_label_set('streets').names)"
    printed = with_file_in("csg/labelsets", tmp_path / "streets.yaml", tmp_path / "copy", statement)
    assert "building" in printed
