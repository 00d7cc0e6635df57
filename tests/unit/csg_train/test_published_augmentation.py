"""Training images: RandAugment as published (docs/method.md section 6), and methods that train without augmentation.

Each operation is compared with a slow reference.
"""

from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image

from csg.datasets.classification import read_classification_dataset
from csg.datasets.segmentation import read_segmentation_dataset
from csg.images import load
from csg_train.data import rand_augment
from csg_train.data.crops import NO_AUGMENT, Crops
from csg_train.data.rand_augment import NAMES, OPERATIONS, Operation, RandAugment
from csg_train.data.views import Views
from csg_train.methods.spec import parse_method
from csg_train.recipe import ClassificationAugment, ClassificationData, SegmentationData
from csg_train.training.command import train
from csg_train.training.run_folder import Run
from csg_train.training.tensor_files import tensors_digest
from tests.helpers.mask_files import write_gta5
from tests.helpers.small_runs import noisy_images, tiny_recipe

PIXELS = np.random.default_rng(0).integers(30, 220, (40, 48, 3), dtype=np.uint8)


def grey(x):
    return np.rint(x @ [0.299, 0.587, 0.114])[..., None]


def smooth(x):
    """The mean of a pixel, five times, and of its eight neighbours; the pixels of the border are kept."""
    weights, out = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13, x.astype(float)
    for row in range(1, x.shape[0] - 1):
        for column in range(1, x.shape[1] - 1):
            out[row, column] = (weights[..., None] * x[row - 1 : row + 2, column - 1 : column + 2]).sum((0, 1))
    return out


def towards(base):
    """An image at `factor` of its distance from another one."""
    return lambda x, factor: np.clip(base(x) + factor * (x - base(x)), 0, 255)


def mapped(matrix):
    """The pixel at (x, y) is that which the matrix of a value maps it to; black outside. Nearest neighbour."""

    def reference(x, value):
        out, (height, width) = np.zeros_like(x), x.shape[:2]
        for row in range(height):
            for column in range(width):
                across, down = matrix(value) @ [column + 0.5, row + 0.5, 1]
                if 0 <= across < width and 0 <= down < height:
                    out[row, column] = x[int(down), int(across)]
        return out

    return reference


def turn(degrees):
    """Counter-clockwise about the centre."""
    cos, sin, (height, width) = np.cos(np.radians(degrees)), np.sin(np.radians(degrees)), PIXELS.shape[:2]
    rotation, centre = np.array([[cos, -sin], [sin, cos]]), np.array([width / 2, height / 2])
    return np.column_stack([rotation, centre - rotation @ centre])


def stretched(x, _):
    low, high = x.min((0, 1)).astype(float), x.max((0, 1))
    return np.floor((x - low) * 255 / (high - low) + 1e-6)


def equalized(x, _):
    """Each level becomes the share of the pixels below it."""
    out = np.empty_like(x, float)
    for channel in range(3):
        levels = x[..., channel]
        counts = np.bincount(levels.ravel(), minlength=256)
        step = (counts.sum() - counts[counts.nonzero()[0][-1]]) // 255
        out[..., channel] = np.minimum((step // 2 + np.cumsum(counts) - counts) // step, 255)[levels]
    return out


PUBLISHED = {
    "identity": (None, None, lambda x, _: x),
    "autocontrast": (None, None, stretched),
    "equalize": (None, None, equalized),
    "rotate": ([6, -6], [30, -30], mapped(turn)),
    "posterize": ([7], [1], lambda x, bits: x >> (8 - bits) << (8 - bits)),
    "solarize": ([205], [0], lambda x, threshold: np.where(x >= threshold, 255 - x, x)),
    "colour": ([1.18, 0.82], [1.9, 0.1], towards(grey)),
    "contrast": ([1.18, 0.82], [1.9, 0.1], towards(lambda x: np.rint(grey(x).mean()))),
    "brightness": ([1.18, 0.82], [1.9, 0.1], towards(np.zeros_like)),
    "sharpness": ([1.18, 0.82], [1.9, 0.1], towards(smooth)),
    "shear-x": ([0.06, -0.06], [0.3, -0.3], mapped(lambda v: np.array([[1, v, 0], [0, 1, 0]]))),
    "shear-y": ([0.06, -0.06], [0.3, -0.3], mapped(lambda v: np.array([[1, 0, 0], [v, 1, 0]]))),
    "translate-x": ([10, -10], [50, -50], mapped(lambda v: np.array([[1, 0, v], [0, 1, 0]]))),
    "translate-y": ([10, -10], [50, -50], mapped(lambda v: np.array([[1, 0, 0], [0, 1, v]]))),
}
"""By operation: its values at m = 6 and at m = 30, and what it does with one; translations at half the size."""


def draws(name, magnitude, monkeypatch, count=40):
    """The different results of draws of one operation, at half the size of the original image."""
    monkeypatch.setattr(rand_augment, "NAMES", (name,))
    torch.manual_seed(0)
    augment, image = RandAugment(1, magnitude), Image.fromarray(PIXELS)
    found = [np.asarray(augment(image, scale=0.5)) for _ in range(count)]
    return {pixels.tobytes(): pixels.astype(int) for pixels in found}.values()


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("magnitude", [6, 30])
def test_each_operation_has_its_published_strength(name, magnitude, monkeypatch):
    at_6, at_30, reference = PUBLISHED[name]
    values = at_6 if magnitude == 6 else at_30
    expected = [np.trunc(reference(PIXELS, value)) for value in values or [None]]
    if name in ("autocontrast", "equalize") and magnitude == 6:
        expected.append(PIXELS)  # applied with probability 0.2
    found = draws(name, magnitude, monkeypatch)
    assert len(found) == len({pixels.tobytes() for pixels in expected})
    for pixels in expected:  # up to a grey level; nearest neighbours may differ on the border of two pixels
        close = [(abs(pixels - other) <= 1).all(-1).mean() for other in found]
        assert max(close) > 0.99, close


def test_all_fourteen_operations_are_equally_likely(monkeypatch):
    assert list(NAMES) == list(PUBLISHED)
    counts, image = Counter(), Image.fromarray(PIXELS)

    def counting(name):
        return Operation(1, lambda image, value: counts.update([name]) or image)

    monkeypatch.setattr(rand_augment, "OPERATIONS", {name: counting(name) for name in NAMES})
    torch.manual_seed(0)
    RandAugment(7000, 30)(image, scale=1)
    assert set(counts) == set(NAMES)
    assert all(abs(count - 500) < 90 for count in counts.values()), counts  # four standard deviations


@pytest.mark.parametrize("name", ["autocontrast", "equalize"])
def test_autocontrast_and_equalize_are_applied_to_a_fifth(name, monkeypatch):
    applied = []
    monkeypatch.setattr(rand_augment, "NAMES", (name,))
    monkeypatch.setitem(OPERATIONS, name, OPERATIONS[name]._replace(apply=lambda image, _: applied.append(1) or image))
    torch.manual_seed(0)
    RandAugment(2000, 6)(Image.fromarray(PIXELS), scale=1)
    assert abs(len(applied) / 2000 - 0.2) < 0.036  # four standard deviations


@pytest.fixture
def pictures(tmp_path):
    """Two classes of one white image of 200 x 240 pixels, in steps of grey from top to bottom."""
    pixels = np.repeat(np.linspace(100, 255, 240).astype(np.uint8), 200 * 3).reshape(240, 200, 3)
    for name in "ab":
        (tmp_path / name).mkdir()
        Image.fromarray(pixels).save(tmp_path / name / "0.png")
    return read_classification_dataset([tmp_path])


DATA = ClassificationData(train=("x",), resize=50, size=50)


def test_an_image_is_moved_by_pixels_of_the_original(pictures, monkeypatch):
    monkeypatch.setattr(rand_augment, "NAMES", ("translate-x",))
    (view,), _ = Views(pictures, DATA, ClassificationAugment(magnitude=6), 1, seed=0)[0, 0]
    black = (view == 0).all(-1).all(0)
    assert black.sum() == 5, "20 of 200 pixels are 5 of 50"


def test_without_augmentation_a_view_is_what_the_network_is_measured_on(pictures):
    views = Views(pictures, DATA, None, 1, seed=0)
    for epoch in (0, 1):
        (view,), label = views[epoch, 1]
        assert np.array_equal(view, load(pictures.paths[1], DATA.image_input()))
        assert label == 1


def test_without_augmentation_a_crop_is_a_part_of_the_scene(tmp_path):
    scenes = read_segmentation_dataset([write_gta5(tmp_path)], "cityscapes19")
    crops = Crops(scenes, SegmentationData(train=("x",), crop=(24, 32)), NO_AUGMENT, 2, seed=0)
    whole, labels = scenes.load(0)
    windows = np.lib.stride_tricks.sliding_window_view(np.asarray(whole), (24, 32, 3))[..., 0, :, :, :]
    for epoch in range(4):
        (view, other), found = crops[epoch, 0]
        ((top, left),) = np.argwhere((windows == view.numpy()).all((2, 3, 4)))
        assert np.array_equal(found, labels[top : top + 24, left : left + 32])
        assert torch.equal(view, other)


@pytest.mark.parametrize(("method", "augmented"), [("none", False), ("none:augment=true", True), ("ibn-a", True)])
def test_only_what_is_published_without_augmentation_trains_without_it(method, augmented, tmp_path):
    data, spec = noisy_images(tmp_path / "data"), parse_method(method)
    digests = set()
    for magnitude in (0, 30):
        recipe = tiny_recipe(data, optim__steps=1, augment__magnitude=magnitude, **spec.changes)
        run = Run(tmp_path / f"run-{magnitude}")
        train(recipe, run)
        digests.add(tensors_digest(run.student(), {}))
    assert (len(digests) == 2) == augmented
