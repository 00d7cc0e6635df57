"""Crops of images and masks, and the synthetic scenes they are taken from."""

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from csg.card import SegmentationInput
from csg.datasets.label_sets import IGNORED
from csg.datasets.segmentation import read_segmentation_dataset
from csg.errors import InputError
from csg_train.data.crops import Crops, joint_crop
from csg_train.data.synthetic_scenes import DIGIT_SCENES, draw_scene
from csg_train.recipe import SegmentationAugment, SegmentationData, load_recipe
from csg_train.tasks import TASKS, Prediction
from tests.helpers.mask_files import save_image, write_gta5


@pytest.fixture
def gta5(tmp_path):
    return write_gta5(tmp_path / "gta5")


sizes = st.tuples(st.integers(1, 70), st.integers(1, 70))


@given(sizes, st.sampled_from([0.5, 0.75, 1.0, 1.25, 2.0]), st.integers(0, 2**16))
def test_image_and_labels_are_cropped_together(size, scale, seed):
    """Labels that equal the image's channels still do so after a crop without resizing; padding is 255."""
    labels = np.random.default_rng(seed).integers(0, 200, size, dtype=np.uint8)
    image = Image.fromarray(np.repeat(labels[..., None], 3, 2))
    torch.manual_seed(seed)
    crop, mask = joint_crop(image, labels, scale, (32, 24))
    assert crop.shape == (3, 32, 24)
    assert mask.shape == (32, 24)
    assert crop.dtype == mask.dtype == torch.uint8
    inside = mask != IGNORED
    assert set(mask[inside].tolist()) <= set(labels.ravel().tolist()), "nearest neighbour adds no value"
    if scale == 1:
        assert torch.equal(crop[0][inside], mask[inside])
        padded = crop[:, ~inside]
        assert torch.equal(
            padded, torch.tensor(SegmentationInput().pad_colour, dtype=torch.uint8)[:, None].expand_as(padded)
        )


def test_views_share_the_crop_and_differ_in_colour(gta5):
    scenes, data = read_segmentation_dataset([gta5], "cityscapes19"), SegmentationData(train=("x",), crop=(24, 32))
    crops = Crops(scenes, data, SegmentationAugment(), 2, seed=3)
    views, labels = crops[(0, 1)]
    assert views.shape == (2, 24, 32, 3)
    assert labels.shape == (24, 32)
    assert not torch.equal(views[0], views[1])
    again, _ = crops[(0, 1)]
    assert torch.equal(again, views)
    other, _ = crops[(1, 1)]
    assert not torch.equal(other, views)
    plain = Crops(scenes, data, SegmentationAugment(jitter=0), 2, seed=3)[(0, 1)][0]
    assert torch.equal(plain[0], plain[1])
    assert torch.equal(plain[0], views[0]), "the first view has no jitter"


def test_drawn_scenes_are_reproducible_and_labelled(tmp_path):
    one, other = (draw_scene(np.random.default_rng([1, 0, 7])) for _ in range(2))
    assert np.array_equal(one[0], other[0])
    assert np.array_equal(one[1], other[1])
    DIGIT_SCENES.write(tmp_path / "x", 20, seed=0)
    scenes = read_segmentation_dataset([tmp_path / "x"], "digit-scenes")
    found = np.bincount(np.concatenate([scenes.load(i)[1].ravel() for i in range(20)]), minlength=11)
    assert found[0] > found[1:].sum()
    assert (found[1:] > 0).sum() >= 8


def test_images_without_a_labelled_pixel_cannot_be_measured(tmp_path):
    save_image(tmp_path / "images" / "0.png", np.zeros((8, 8, 3), np.uint8))
    save_image(tmp_path / "labels" / "0.png", np.full((8, 8), IGNORED, np.uint8))
    images, recipe = read_segmentation_dataset([tmp_path], "camvid11"), load_recipe("camvid")

    def predict(batch):
        return Prediction(torch.zeros(1, 11, *batch.shape[1:3]))

    with pytest.raises(InputError, match=r"no pixel of .* belongs to a class of label set camvid11"):
        TASKS["seg"].measure(predict, images.class_spec, images, recipe, torch.device("cpu"))
