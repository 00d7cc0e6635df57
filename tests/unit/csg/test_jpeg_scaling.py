"""JPEG files that are much larger than needed are decoded at a reduced scale, where the card says so."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from csg.card import ClassificationInput, SegmentationInput
from csg.images import decode, decoded, load, load_segmentation, prepare, prepare_segmentation
from csg.tiles import load_tiles
from csg_train.data.evaluation_batches import image_batches
from csg_train.data.views import Views
from csg_train.recipe import load_recipe
from csg_train.training.run_files import RECIPE
from csg_train.training.run_folder import Run
from tests.helpers.costly_images import photograph
from tests.helpers.image_files import KINDS, encoded, noise, turned

PHOTOGRAPH = photograph(1203, 901)
TURNED = photograph(1203, 901, exif=turned())
SPEC = ClassificationInput(height=64, width=64, resize_shorter_side=80, jpeg_scaling=True)
OLD = SPEC.model_copy(update={"jpeg_scaling": False})


def size_for(content, spec):
    with decoded(content, spec) as found:
        assert found.original == decode(content).size
        return found.pixels.size


@pytest.mark.parametrize(
    ("shorter", "size"),
    [
        (500, (1203, 901)),
        (226, (1203, 901)),
        (225, (602, 451)),
        (113, (602, 451)),
        (112, (301, 226)),
        (57, (301, 226)),
        (56, (151, 113)),
        (8, (151, 113)),
    ],
)
def test_at_least_twice_the_sides_are_left(shorter, size):
    spec = ClassificationInput(height=8, width=8, resize_shorter_side=shorter, jpeg_scaling=True)
    assert size_for(PHOTOGRAPH, spec) == size
    assert size_for(TURNED, spec) == size[::-1]


def test_a_segmenter_counts_the_size_after_resizing_with_orientation_applied():
    own, resized = SegmentationInput(jpeg_scaling=True), SegmentationInput(resize_shorter_side=112, jpeg_scaling=True)
    wide = SegmentationInput(height=72, width=304, jpeg_scaling=True)
    assert [size_for(PHOTOGRAPH, spec) for spec in (own, resized, wide)] == [(1203, 901), (301, 226), (301, 226)]
    assert [size_for(TURNED, spec) for spec in (own, resized, wide)] == [(901, 1203), (226, 301), (113, 151)]


def test_the_pixels_are_nearly_those_of_the_whole_image():
    """For every orientation, though the sides are no multiples of the scale."""
    for orientation in range(1, 9):
        content = photograph(1203, 901, exif=turned(orientation))
        scaled, whole = load(content, SPEC).astype(int), load(content, OLD).astype(int)
        assert 0 < np.abs(scaled - whole).mean() < 1


@pytest.mark.parametrize("kind", KINDS)
def test_other_files_keep_their_pixels(kind):
    if kind != "large":
        assert np.array_equal(load(KINDS[kind], SPEC), load(KINDS[kind], OLD))


def test_an_older_card_keeps_its_pixels():
    """Such a card does not name the field. Its pixels are those of the whole image as libjpeg decodes it."""
    fields = json.loads(SPEC.model_dump_json())
    del fields["jpeg_scaling"]
    with Image.open(io.BytesIO(PHOTOGRAPH)) as image:
        whole = image.convert("RGB")
    assert np.array_equal(load(PHOTOGRAPH, ClassificationInput(**fields)), prepare(whole, OLD))
    assert not np.array_equal(load(PHOTOGRAPH, SPEC), prepare(whole, OLD))
    scene = SegmentationInput(resize_shorter_side=80)
    expected = prepare_segmentation(whole, scene).pixels
    assert np.array_equal(load_segmentation(PHOTOGRAPH, scene).pixels, expected)


@pytest.mark.parametrize("content", [PHOTOGRAPH, TURNED])
@pytest.mark.parametrize("fixed", [None, (96, 128)])
def test_label_maps_keep_the_size_of_the_file(content, fixed):
    spec = SegmentationInput(resize_shorter_side=100, height=fixed and fixed[0], width=fixed and fixed[1])
    scaling = spec.model_copy(update={"jpeg_scaling": True})
    scaled, whole = load_segmentation(content, scaling), load_segmentation(content, spec)
    assert (scaled.original, scaled.scaled, scaled.pixels.shape) == (whole.original, whole.scaled, whole.pixels.shape)
    assert scaled.restore(scaled.pixels[..., 0]).shape == decode(content).size[::-1]
    tiles = load_tiles(content, scaling, 64)
    assert tiles.restore([tile[..., 0] for tile in tiles.tiles]).shape == decode(content).size[::-1]


def test_training_validation_and_export_use_the_preparation_of_the_card(tmp_path):
    file = tmp_path / "a.jpg"
    file.write_bytes(PHOTOGRAPH)
    changes = {"data.resize": 80, "data.size": 80, "augment.operations": 0}
    recipe = load_recipe("pacs", {"data.train": [str(tmp_path)], **changes})
    spec = recipe.data.image_input()
    assert spec.jpeg_scaling
    ((_, batch),) = image_batches([file], spec)
    assert np.array_equal(batch[0], load(PHOTOGRAPH, spec))

    class Images:
        paths, labels = (file,), np.array([0])

    (view,), _ = Views(Images, recipe.data, recipe.augment, views=1, seed=0)[0, 0]
    with decoded(PHOTOGRAPH, spec) as found:
        assert found.pixels.size == (301, 226)
        resized = np.asarray(found.resized((int(80 * 1203 / 901), 80)))
    assert any(np.array_equal(view, resized[:, left : left + 80]) for left in range(resized.shape[1] - 79))


def test_images_below_twice_the_size_are_trained_on_as_before(tmp_path):
    for size in ((227, 227), (512, 512)):
        content = encoded(noise(size=size), "JPEG")
        recipe = load_recipe("pacs", {"data.train": ["x"], "data.resize": 224})
        assert size_for(content, recipe.data.image_input()) == size


def test_a_run_of_an_older_csg_stays_without_it(tmp_path):
    recipe = load_recipe("digits", {})
    written = recipe.to_yaml()
    (tmp_path / RECIPE).write_text(written)
    assert Run(tmp_path).recipe().data.jpeg_scaling
    (tmp_path / RECIPE).write_text(written.replace("  jpeg_scaling: true\n", ""))
    assert not Run(tmp_path).recipe().data.image_input().jpeg_scaling
