"""Images from which nothing can be learned end a training with a word, not with a student."""

import numpy as np
from PIL import Image

from tests.helpers.cli import csg, refused
from tests.helpers.small_runs import noisy_images, settings


def scenes(folder, labelled):
    """Four images of 64 x 64 whose masks are ignored but for the first `labelled` pixels, which are road."""
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
    mask = np.zeros(64 * 64, np.uint8)
    mask[:labelled] = 7
    for index in range(4):
        pixels = np.random.default_rng(index).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / "images" / f"{index}.png")
        Image.fromarray(mask.reshape(64, 64)).save(folder / "labels" / f"{index}.png")
    return folder


def train_scenes(data):
    changes = {"data__crop": "[32,32]", "data__labels": "cityscapes19", "augment__scale": "[1.0,1.0]"}
    words = settings(**changes, model__head="deeplabv2", optim__batch=2, optim__steps=3)
    pairs = zip(words[::2], words[1::2], strict=True)
    kept = [word for pair in pairs if not pair[1].startswith(("data.resize", "data.size")) for word in pair]
    return csg("train", "seg", "--recipe", "gta5", *kept, "--data", data, "--out", "r")


def test_masks_without_a_labelled_pixel_are_refused(tmp_path):
    refused(train_scenes(scenes(tmp_path / "data", 0)), 3, "ignored|counts|belongs")


def test_crops_that_never_show_a_labelled_pixel_leave_no_student(tmp_path):
    """One pixel in the corner of each image: no crop of this seed contains it."""
    refused(train_scenes(scenes(tmp_path / "data", 1)), 3, "no pixel of the 4 training images belongs to a class")
    assert not (tmp_path / "r" / "student.safetensors").exists()


def test_some_labelled_pixels_are_enough(tmp_path):
    done = train_scenes(scenes(tmp_path / "data", 64 * 40))
    assert done.returncode == 0, done.stderr


def test_maps_too_small_for_instance_norm_are_one_line(tmp_path):
    data = noisy_images(tmp_path / "data")
    words = settings(data__size=8, data__resize=8, model__backbone="mobilenet_v2_ibn_a")
    refused(csg("train", "cls", *words, "--data", data, "--out", "r"), 2, "single pixels.*larger images")
