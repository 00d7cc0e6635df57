"""Cityscapes' tree: paths as they are given, whatever the folders are linked to."""

import pytest

from csg.datasets.label_sets import read_label_set
from csg.datasets.segmentation import read_segmentation_dataset
from csg.errors import InputError
from tests.helpers.mask_files import touch

IMAGE, MASK = "bonn/bonn_000000_000019_leftImg8bit.png", "bonn/bonn_000000_000019_gtFine_labelIds.png"


def found(source):
    scenes = read_segmentation_dataset([source])
    return [str(path) for path in scenes.paths], [str(path) for path in scenes.masks]


@pytest.fixture
def joined(tmp_path):
    """The two archives at two places, one renamed, joined by links."""
    touch(tmp_path / "disk1", f"images_hd/val/{IMAGE}", "images_hd/val/bonn/Thumbs.db")
    touch(tmp_path / "disk2", f"gtFine/val/{MASK}", f"gtFine/val/{MASK.replace('labelIds', 'color')}")
    (tmp_path / "cityscapes").mkdir()
    (tmp_path / "cityscapes" / "leftImg8bit").symlink_to(tmp_path / "disk1" / "images_hd")
    (tmp_path / "cityscapes" / "gtFine").symlink_to(tmp_path / "disk2" / "gtFine")
    return tmp_path / "cityscapes"


def test_the_tree_its_split_and_its_city_are_read_as_given(joined, monkeypatch):
    for part in ("", "leftImg8bit", "leftImg8bit/val", "leftImg8bit/val/bonn"):
        images, masks = found(joined / part)
        assert images == [f"{joined}/leftImg8bit/val/{IMAGE}"]
        assert masks == [f"{joined}/gtFine/val/{MASK}"]
    for folder, source in ((joined, "."), (joined, "leftImg8bit/val"), (joined.parent, "cityscapes/leftImg8bit/val/")):
        monkeypatch.chdir(folder)
        assert len(found(source)[0]) == 1


def test_a_link_into_the_tree_finds_the_masks_of_the_tree(tmp_path, monkeypatch):
    touch(tmp_path / "tree", f"leftImg8bit/val/{IMAGE}", f"gtFine/val/{MASK}")
    (tmp_path / "short").symlink_to(tmp_path / "tree" / "leftImg8bit" / "val")
    images, masks = found(tmp_path / "short")
    assert images == [f"{tmp_path}/short/{IMAGE}"]
    assert masks == [f"{tmp_path}/tree/gtFine/val/{MASK}"]
    monkeypatch.chdir(tmp_path / "tree" / "leftImg8bit" / "val" / "bonn")
    assert len(found(".")[1]) == 1


@pytest.mark.parametrize(
    ("image", "mask", "source"),
    [
        ("leftImg8bit_trainvaltest/leftImg8bit/val", "gtFine_trainvaltest/gtFine/val", "leftImg8bit_trainvaltest"),
        ("leftImg8bit_trainextra/leftImg8bit/train_extra", "gtCoarse/gtCoarse/train_extra", "leftImg8bit_trainextra"),
        ("leftImg8bit/train_extra", "gtCoarse/train_extra", ""),
    ],
)
def test_archives_that_are_unpacked_side_by_side(tmp_path, image, mask, source):
    name = MASK.replace("gtFine", "gtCoarse") if "Coarse" in mask else MASK
    touch(tmp_path, f"{image}/{IMAGE}", f"{mask}/{name}", "gtFine/readme")
    for folder in (tmp_path / source, tmp_path / image):
        assert found(folder)[1][0].endswith(f"{mask}/{name}")


def test_other_files_in_the_tree_are_passed_over(joined):
    touch(joined / "leftImg8bit", "preview.jpg", "val/bonn/.DS_Store")
    scenes = read_segmentation_dataset([joined])
    assert len(scenes) == 1
    assert "passed over" in scenes.notes[0]
    assert "1 .jpg" in scenes.notes[0]


def test_train_ids_are_taken_where_there_are_no_label_ids(tmp_path):
    touch(tmp_path, f"leftImg8bit/val/{IMAGE}", f"gtFine/val/{MASK.replace('labelIds', 'labelTrainIds')}")
    scenes = read_segmentation_dataset([tmp_path])
    assert scenes.tables[0][13] == scenes.labels.names.index("car")
    touch(tmp_path, f"gtFine/val/{MASK}")
    scenes = read_segmentation_dataset([tmp_path])
    assert scenes.tables[0][26] == scenes.labels.names.index("car")


@pytest.mark.parametrize("name", ["synthia16", "cityscapes16", "bdd19", "mapillary"])
def test_a_model_of_another_set_of_streets_reads_the_values_of_cityscapes(tmp_path, name):
    """The label set of a served model is the default; SYNTHIA's value of a car is 8, Cityscapes' is 26."""
    touch(tmp_path, f"leftImg8bit/val/{IMAGE}", f"gtFine/val/{MASK}")
    scenes = read_segmentation_dataset([tmp_path], name)
    assert scenes.labels == read_label_set(name)
    assert scenes.labels.names[scenes.tables[0][26]] == "car"


@pytest.mark.parametrize(
    ("names", "message"),
    [
        ((f"leftImg8bit/val/{IMAGE}",), r"masks of .*leftImg8bit are not in .*gtFine/val; put or link gtFine"),
        ((f"leftImg8bit/val/{IMAGE}", "gtFine/val/x"), r"no mask .*gtFine/val/bonn/bonn_.*_gtFine_labelIds"),
        (("leftImg8bit/val/x", "gtFine/val/x"), r"leftImg8bit holds no image"),
        (("leftImg8bit/val/x", "leftImg8bit/train/x"), r"holds the splits train, val; name one, for example .*/train"),
    ],
)  # fmt: skip
def test_what_is_missing_is_named(tmp_path, names, message):
    with pytest.raises(InputError, match=message):
        read_segmentation_dataset([touch(tmp_path, *names)])
