"""Images and their masks: an image has the mask that is meant for it, or there is an error that names it."""

import os
import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csg.datasets.segmentation import read_segmentation_dataset
from csg.errors import InputError
from tests.helpers.mask_files import pairs_of, touch


def read(folder, labels="cityscapes19"):
    return read_segmentation_dataset([folder], labels)


def test_masks_are_in_the_same_sub_folders(tmp_path):
    folder = touch(
        tmp_path, "images/x.png", "labels/x.png", "images/night/x.jpg", "labels/night/x.png", "images/a/b/x.PNG"
    )
    touch(folder, "labels/a/b/x.PNG")
    assert pairs_of(read(folder), folder) == {
        "images/a/b/x.PNG": "labels/a/b/x.PNG",
        "images/night/x.jpg": "labels/night/x.png",
        "images/x.png": "labels/x.png",
    }


def test_masks_in_one_folder_serve_images_in_sub_folders(tmp_path):
    folder = touch(tmp_path, "images/day/1.png", "images/night/2.png", "labels/1.png", "labels/2.png", "labels/.git/x")
    assert pairs_of(read(folder), folder) == {"images/day/1.png": "labels/1.png", "images/night/2.png": "labels/2.png"}
    (folder / "labels" / "night").mkdir()
    with pytest.raises(
        InputError, match=r"image .*images/day/1\.png has no mask .*labels/day/1\.png .2 .*labels/1\.png is not taken"
    ):
        read(folder)


@pytest.mark.parametrize(
    ("names", "message"),
    [
        (("images/a.jpg", "images/a.png", "labels/a.png"), r"/a\.jpg and .*/a\.png have the same mask .*labels/a\.png"),
        (("images/n/x.png", "images/x.png", "labels/x.png"), r"n/x\.png and .*s/x\.png have the same mask"),
        (("images/x.png", "labels/x.png", "labels/x.PNG"), r"masks .*x\.PNG and .*x\.png belong to the same image"),
        (("images/x.png", "images/y.png", "labels/z.png"), r"has no mask .*labels/x\.png .2 images have"),
        (("images/x.png", "labels/x.jpg"), r"has no mask .*: 1 file passed over: 1 \.jpg, masks are \.png"),
        (("images/x.heic", "images/._x.png", "labels/x.png"), r"images holds no image; .*2 files passed over: 1 .*1 "),
        (("images/x.png",), r"labels does not exist"),
    ],
)  # fmt: skip
def test_what_is_not_one_to_one_is_named(tmp_path, names, message):
    with pytest.raises(InputError, match=message):
        read(touch(tmp_path, *names))


def test_files_passed_over_and_masks_without_an_image_are_noted(tmp_path):
    folder = touch(tmp_path, "images/x.png", "images/._x.png", "images/.DS_Store", "images/notes.txt", "images/y.heic")
    touch(folder, "labels/x.png", "labels/._x.png", "labels/y.png", "labels/z.png", "labels/x_labelTrainIds.png")
    scenes = read(folder)
    assert pairs_of(scenes, folder) == {"images/x.png": "labels/x.png"}
    passed_over, unused = scenes.notes
    assert "4 files passed over: 2 hidden" in passed_over
    assert unused == f"2 masks have no image, such as {folder / 'labels' / 'y.png'}"


@pytest.mark.parametrize("name", ["café", "Übung/straße", "が"])
@pytest.mark.parametrize("forms", [("NFD", "NFC"), ("NFC", "NFD")])
def test_names_of_macos_and_of_linux_are_the_same(tmp_path, name, forms):
    image, mask = (unicodedata.normalize(form, name) for form in forms)
    folder = touch(tmp_path, f"images/{image}.jpg", f"labels/{mask}.png")
    assert pairs_of(read(folder), folder) == {f"images/{image}.jpg": f"labels/{mask}.png"}


def test_linked_folders_are_followed_and_loops_are_not(tmp_path):
    folder, elsewhere = tmp_path / "set", touch(tmp_path / "disk", "i/a.png", "i/b.png", "l/a.png", "l/b.png")
    touch(folder, "images/night/a.png", "labels/night/a.png")
    for name, target in (("images", "i"), ("labels", "l")):
        (folder / name / "day").symlink_to(elsewhere / target)
        (folder / name / "loop").symlink_to(folder / name)
    assert pairs_of(read(folder), folder) == {
        f"images/{name}.png": f"labels/{name}.png" for name in ("day/a", "day/b", "night/a")
    }


def test_weather_variants_may_link_to_the_same_masks(tmp_path):
    folder = touch(tmp_path, "images/clear/a.png", "images/fog/a.png", "labels/clear/a.png")
    (folder / "labels" / "fog").symlink_to("clear")
    assert pairs_of(read(folder), folder)["images/fog/a.png"] == "labels/fog/a.png"


@pytest.mark.parametrize(
    ("mask", "train_ids"),
    [("a_labelTrainIds", True), ("a_labelIds", False), ("a_train_id", True), ("a_gtFine_labelIds", False)],
)
def test_masks_with_the_endings_of_published_sets(tmp_path, mask, train_ids):
    folder = touch(tmp_path, "images/train/a.jpg", f"labels/train/{mask}.png")
    scenes = read(folder)
    assert pairs_of(scenes, folder) == {"images/train/a.jpg": f"labels/train/{mask}.png"}
    assert scenes.tables[0][13] == (13 if train_ids else 4)


def test_a_users_own_set_gives_the_values_of_masks_that_are_named_as_train_ids(tmp_path):
    """A set that joins classes of BDD100K, whose masks are named x_train_id.png."""
    folder = touch(tmp_path, "images/a.jpg", "labels/a_train_id.png")
    classes = "{name: road, ids: [0, 1], colour: [0, 0, 0]}, {name: car, ids: [13], colour: [1, 1, 1]}"
    (folder / "labels.yaml").write_text(f"name: own\nclasses: [{classes}]\n")
    assert read(folder).tables[0][[0, 1, 13]].tolist() == [0, 0, 1]


def test_a_renamed_tree_of_cityscapes(tmp_path):
    folder = touch(tmp_path, "images/bonn/bonn_1_leftImg8bit.png", "labels/bonn/bonn_1_gtFine_labelIds.png")
    touch(folder, "labels/bonn/bonn_1_gtFine_color.png", "labels/bonn/bonn_1_gtFine_labelTrainIds.png")
    assert pairs_of(read(folder), folder) == {
        "images/bonn/bonn_1_leftImg8bit.png": "labels/bonn/bonn_1_gtFine_labelIds.png"
    }


@pytest.mark.skipif(os.name != "posix", reason="names of bytes")
def test_names_that_are_no_text(tmp_path):
    name = os.fsdecode(b"caf\xe9")
    folder = touch(tmp_path, f"images/{name}.png", f"labels/{name}.png")
    assert len(read(folder)) == 1
    (folder / "labels" / f"{name}.png").unlink()
    with pytest.raises(InputError, match=r"caf\\xe9\.png has no mask"):
        read(folder)


FOLDERS = st.sampled_from(["", "day/", "night/", "a/b/"])
NAMES = st.sets(st.tuples(FOLDERS, st.sampled_from(["1", "2", "x.y", "é", "a_labelIds"])), min_size=1)


@given(NAMES, NAMES, st.booleans())
@settings(max_examples=60, deadline=None)
def test_every_image_has_the_mask_of_its_name_or_there_is_an_error(tmp_path_factory, images, masks, flat):
    """Against a plain reading of the rule; names are unique, so no two images may share a mask unless it is flat."""
    folder = tmp_path_factory.mktemp("set")
    masks = {("" if flat else where, name) for where, name in masks}
    touch(folder, *(f"images/{where}{name}.jpg" for where, name in images))
    touch(folder, *(f"labels/{where}{name}.png" for where, name in masks))
    flat = not any(where for where, _ in masks)
    expected = {(where, name): ("" if flat else where, name) for where, name in images}
    expected = {
        key: mask if mask in masks or mask[1] != "a" else (mask[0], "a_labelIds") for key, mask in expected.items()
    }
    if set(expected.values()) <= masks and len(set(expected.values())) == len(images):
        assert pairs_of(read(folder), folder) == {
            f"images/{a}{b}.jpg": f"labels/{c}{d}.png" for (a, b), (c, d) in expected.items()
        }
    else:
        with pytest.raises(InputError, match=r"has no mask|have the same mask"):
            read(folder)
