"""Images with masks: every format is read, and what is wrong is named."""

import numpy as np
import pytest
from PIL import Image

from csg.card import ClassSpec
from csg.datasets.label_sets import read_label_set
from csg.datasets.segmentation import read_segmentation_dataset
from csg.errors import InputError
from tests.helpers.mask_files import CITYSCAPES_IDS, png, save_image, write_gta5


@pytest.fixture
def gta5(tmp_path):
    return write_gta5(tmp_path / "gta5")


def cityscapes(root, split, city, ending="labelIds"):
    rng, name = np.random.default_rng(1), f"{city}_000000_000019"
    save_image(root / "leftImg8bit" / split / city / f"{name}_leftImg8bit.png", np.zeros((32, 64, 3), np.uint8))
    high = 20 if ending == "labelTrainIds" else 34
    values = rng.integers(0, high, (32, 64)).astype(np.uint8)
    if ending == "labelTrainIds":
        values[values == 19] = 255
    save_image(root / "gtFine" / split / city / f"{name}_gtFine_{ending}.png", values)
    return values


def test_gta5_has_cityscapes_ids(gta5):
    scenes = read_segmentation_dataset([gta5], "cityscapes19")
    assert len(scenes) == 2
    assert scenes.class_spec.names[0] == "road"
    image, found = scenes.load(0)
    values = np.asarray(Image.open(gta5 / "labels" / "00001.png"))
    slow = [[CITYSCAPES_IDS.index(v) if v in CITYSCAPES_IDS else 255 for v in row] for row in values]
    assert np.array_equal(found, slow)
    assert image.size == (60, 40)


def test_cityscapes_tree_with_ids_and_train_ids(tmp_path):
    for split, city, ending in (("train", "aachen", "labelIds"), ("val", "munster", "labelTrainIds")):
        cityscapes(tmp_path, split, city, ending)
    with pytest.raises(InputError, match=r"splits train, val; .*leftImg8bit/train"):
        read_segmentation_dataset([tmp_path])
    ids, train_ids = (read_segmentation_dataset([tmp_path / "leftImg8bit" / split]) for split in ("train", "val"))
    assert ids.labels == train_ids.labels == read_label_set("cityscapes19")
    values = np.asarray(Image.open(tmp_path / "gtFine/val/munster/munster_000000_000019_gtFine_labelTrainIds.png"))
    assert np.array_equal(train_ids.load(0)[1], values)
    assert set(np.unique(ids.load(0)[1])) == {*range(19), 255}
    both = read_segmentation_dataset([tmp_path / "leftImg8bit" / "train", tmp_path / "leftImg8bit" / "val"])
    assert len(both) == 2
    assert np.array_equal(both.load(1)[1], values)


def test_the_real_sample_of_cityscapes_loads():
    from tests.conftest import SHARED

    sample = SHARED / "cityscapes_sample"
    if not sample.is_dir():
        pytest.skip(f"{sample} does not exist")
    scenes = read_segmentation_dataset([sample])
    image, found = scenes.load(0)
    trained = np.asarray(Image.open(next((sample / "gtFine").glob("*_labelTrainIds.png"))))
    assert (found == trained).mean() > 0.995, "the two masks of the sample were resized separately"
    assert found.shape == (image.height, image.width)


def test_a_folder_may_bring_its_own_label_set(tmp_path):
    save_image(tmp_path / "own" / "images" / "a.jpg", np.zeros((8, 8, 3), np.uint8))
    save_image(tmp_path / "own" / "labels" / "a.png", np.full((8, 8), 3, np.uint8))
    with pytest.raises(InputError, match=r"--labels"):
        read_segmentation_dataset([tmp_path / "own"])
    (tmp_path / "own" / "labels.yaml").write_text(
        "name: own\nclasses: [{name: x, ids: [1], colour: [1, 2, 3]}, {name: y, ids: [2, 3], colour: [4, 5, 6]}]\n"
    )
    scenes = read_segmentation_dataset([tmp_path / "own"])
    assert scenes.class_spec == ClassSpec(("x", "y"), "own", ((1, 2, 3), (4, 5, 6)))
    assert (scenes.load(0)[1] == 1).all()


@pytest.mark.parametrize(
    ("mask", "message"),
    [
        (np.zeros((40, 59), np.uint8), r"labels/00001\.png has 59 x 40 pixels, its image 60 x 40"),
        (np.full((40, 60), 77, np.uint8), r"labels/00001\.png holds 77"),
        (np.full((40, 60), 256, np.uint16), r"labels/00001\.png holds the value 256"),
        (np.zeros((40, 60, 3), np.uint8), r"labels/00001\.png has the channels RGB"),
    ],
)
def test_a_wrong_mask_is_named(gta5, mask, message):
    save_image(gta5 / "labels" / "00001.png", mask)
    with pytest.raises(InputError, match=message):
        read_segmentation_dataset([gta5], "cityscapes19").load(0)


def test_a_missing_or_broken_mask_is_named(gta5):
    (gta5 / "labels" / "00002.png").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"labels/00002\.png can't be read"):
        read_segmentation_dataset([gta5], "cityscapes19").load(1)
    (gta5 / "labels" / "00002.png").unlink()
    with pytest.raises(InputError, match=r"images/00002\.png has no mask .*labels/00002\.png"):
        read_segmentation_dataset([gta5], "cityscapes19")


def test_the_embedded_real_scenes():
    scenes = read_segmentation_dataset(["digit-scenes"])
    assert len(scenes) == 250
    image, labels = scenes.load(0)
    assert image.size == (96, 96)
    assert 0.03 < (labels > 0).mean() < 0.5
    assert scenes.fingerprint() == read_segmentation_dataset(["digit-scenes"]).fingerprint()


@pytest.mark.parametrize("bits", [1, 2, 4])
def test_training_and_evaluation_read_the_values_of_small_masks(tmp_path, bits):
    """A tool that makes PNG files smaller stores a mask of few values in fewer bits."""
    values = np.random.default_rng(0).integers(0, 2**bits, (6, 7))
    save_image(tmp_path / "images" / "a.png", np.zeros((6, 7, 3), np.uint8))
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.png").write_bytes(png(values, bits))
    classes = ", ".join(f"{{name: c{value}, ids: [{value}], colour: [{value}, 0, 0]}}" for value in range(2**bits))
    (tmp_path / "labels.yaml").write_text(f"name: own\nclasses: [{classes}]\n")
    scenes = read_segmentation_dataset([tmp_path])
    assert np.array_equal(scenes.load(0)[1], values)
    assert np.array_equal(scenes.load_labels(0, (7, 6)), values)


def test_a_value_outside_the_set_names_the_sets_that_have_it(gta5):
    with pytest.raises(InputError, match=r"not in label set bdd19; all its values are in cityscapes16, cityscapes19"):
        read_segmentation_dataset([gta5], "bdd19").load(0)


def test_the_notes_of_several_sources_say_whose_they_are(gta5, tmp_path):
    other = write_gta5(tmp_path / "other")
    (other / "images" / "notes.txt").touch()
    both = read_segmentation_dataset([gta5, other], "cityscapes19")
    assert both.notes == (f"other: {other / 'images'}: 1 file passed over: 1 .txt",)
