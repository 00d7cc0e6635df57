"""A training and an evaluation find what can't be used before they begin, or leave it out."""

import json

from PIL import Image

from tests.helpers.cli import csg, refused
from tests.helpers.mask_files import write_gta5

SMALL = {"model.backbone": "mobilenet_v2", "model.head": "deeplabv2", "model.weights": "none", "method": "none"}
SMALL |= {"optim.batch": "2", "data.crop": "[32,32]", "data.workers": "0", "precision": "fp32"}


def train(*options):
    settings = [word for name, value in SMALL.items() for word in ("--set", f"{name}={value}")]
    return csg("train", "seg", "--recipe", "gta5", *settings, "--set", "optim.steps=1", *options)


def test_a_mask_of_another_size_stops_a_training_before_its_first_step(tmp_path):
    folder = write_gta5(tmp_path / "d")
    Image.new("L", (61, 40), 7).save(folder / "labels" / "00002.png")
    done = train("--data", folder, "--set", "data.labels=cityscapes19", "--out", tmp_path / "run")
    refused(
        done, 3, r"1 of 2 images of d .*00002\.png has 61 x 40 pixels, its image 60 x 40", "data.on_unreadable=skip"
    )
    assert "step" not in done.stderr
    assert not (tmp_path / "run").exists()


def test_two_masks_of_other_sizes_are_named_together_and_a_list_leaves_them_out(tmp_path):
    """As in GTA5, whose masks 15188 and 17705 do not have their images' sizes; names alone as in its published list."""
    folder = write_gta5(tmp_path / "gta5", 4)
    for number in (2, 3):
        Image.new("L", (60, 43), 7).save(folder / "labels" / f"{number:05d}.png")
    done = train("--data", folder, "--out", tmp_path / "run")
    refused(done, 3, "2 of 4 images of gta5 can't be used", "or a list file without them")
    for number in (2, 3):
        assert f"{number:05d}.png has 60 x 43 pixels, its image 60 x 40\n" in done.stderr
    (folder / "train.txt").write_text("00001.png\n00004.png\n")
    done = train("--data", folder / "train.txt", "--out", tmp_path / "run", "--json")
    assert done.returncode == 0, done.stderr
    assert "train: 2 images, all 60 x 40" in done.stderr


def test_a_real_image_that_cannot_be_read_stops_a_training_too(tmp_path):
    write_gta5(tmp_path / "d")
    real = write_gta5(tmp_path / "real")
    (real / "images" / "00001.png").write_text("no image")
    options = ("--data", tmp_path / "d", "--real-data", real, "--set", "data.labels=cityscapes19")
    refused(train(*options), 3, "1 of 2 images of real .*not an image file")


def test_the_size_of_images_and_the_share_of_ignored_pixels_are_said(tmp_path):
    done = train("--data", write_gta5(tmp_path / "d"), "--set", "data.labels=cityscapes19", "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["steps"] == 1
    assert "d: 2 images, all 60 x 40" in done.stderr
    assert "% of the pixels are ignored" in done.stderr
