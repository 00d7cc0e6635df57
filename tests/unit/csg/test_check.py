"""What can't be used is found before the first step, from headers and from the masks of a sample."""

from collections import Counter

import numpy as np
import pytest
from PIL import Image

from csg.datasets import check
from csg.datasets.check import check_dataset, describe_sizes
from csg.datasets.classification import read_classification_dataset
from csg.datasets.segmentation import read_segmentation_dataset
from csg.errors import InputError
from tests.helpers.image_files import encoded, noise
from tests.helpers.mask_files import save_image

LABELS = "name: two\nignored: [9]\nclasses:\n" + "".join(
    f"- {{name: {name}, ids: [{value}], colour: [{value}, 0, 0]}}\n" for name, value in (("a", 0), ("b", 1))
)


@pytest.fixture
def pictures(tmp_path):
    """Twelve images of two classes, which are read after `change(folder)`."""

    def read(change=lambda folder: None):
        for name in ("a", "b"):
            (tmp_path / "d" / name).mkdir(parents=True)
            for number in range(6):
                (tmp_path / "d" / name / f"{number}.png").write_bytes(encoded(noise()))
        change(tmp_path / "d")
        return read_classification_dataset([tmp_path / "d"])

    return read


@pytest.fixture
def scenes(tmp_path):
    """Scenes with masks of the values that are given, one for each scene."""

    def read(*values):
        for number, value in enumerate(values):
            save_image(tmp_path / "d" / "images" / f"{number:03d}.png", np.zeros((8, 8, 3), np.uint8))
            save_image(tmp_path / "d" / "labels" / f"{number:03d}.png", np.full((8, 8), value, np.uint8))
        (tmp_path / "d" / "labels.yaml").write_text(LABELS)
        return read_segmentation_dataset([tmp_path / "d"])

    return read


def break_images(*names):
    def change(folder):
        for name in names:
            (folder / name).write_text("no image")

    return change


def test_good_images_are_one_line(pictures, capfd):
    check_dataset(pictures(), "fail", "--skip")
    assert capfd.readouterr().err == "d: 12 images, all 37 x 23\n"


def test_one_unreadable_image_is_named_with_what_to_do(pictures):
    images = pictures(break_images("b/3.png"))
    with pytest.raises(InputError) as error:
        check_dataset(images, "fail", "--skip")
    path = images.paths[9]
    what = f"1 of 12 images of d can't be used: image {path} can't be read: not an image file"
    assert (
        str(error.value)
        == f"{what}; repair or remove it, or leave such images out: --skip, or a list file without them"
    )


def test_many_are_counted_and_ten_are_named(pictures, capfd):
    images = pictures(
        break_images(*(f"{name}/{number}.png" for name in "ab" for number in range(6) if name + str(number) != "b5"))
    )
    with pytest.raises(InputError, match=r"11 of 12 images of d .* image .*/a/0\.png .*leave such images out: --skip"):
        check_dataset(images, "fail", "--skip")
    lines = capfd.readouterr().err.splitlines()
    assert len([line for line in lines if "not an image file" in line]) == 10
    assert lines[-1] == "  and 1 more"


def test_with_skip_they_are_left_out_and_said(pictures, capfd):
    check_dataset(pictures(break_images("b/3.png")), "skip", "--skip")
    err = capfd.readouterr().err
    assert "1 of 12 images of d can't be used" in err
    assert "b/3.png can't be read: not an image file" in err
    assert "left out" in err


def test_a_file_that_is_gone_is_named(pictures):
    images = pictures()
    images.paths[4].unlink()
    with pytest.raises(InputError, match=r"a/4\.png does not exist"):
        check_dataset(images, "fail", "--skip")


@pytest.mark.parametrize("policy", ["fail", "skip"])
def test_no_image_at_all_is_an_error(pictures, policy):
    images = pictures()
    for path in images.paths:
        path.write_text("no image")
    with pytest.raises(InputError, match="none of 12 images of d can be used: the first because image "):
        check_dataset(images, policy, "--skip")


def test_sizes_in_words():
    assert describe_sizes(Counter({(9, 5): 3})) == ", all 9 x 5"
    assert describe_sizes(Counter({(9, 5): 3, (5, 9): 4000})) == ": 5 x 9 (4,000), 9 x 5 (3)"
    assert describe_sizes(Counter([(n, 2) for n in (7, 3, 9, 5)])) == " of 4 sizes, from 3 x 2 to 9 x 2"
    assert describe_sizes(Counter()) == ""


def test_a_mask_of_another_size_is_found(scenes):
    images = scenes(0, 1, 0)
    Image.new("L", (9, 8)).save(images.masks[1])
    with pytest.raises(InputError, match=r"1 of 3 .*mask .*001\.png has 9 x 8 pixels, its image 8 x 8"):
        check_dataset(images, "fail", "--skip")


@pytest.mark.parametrize("damage", ["value", "cut off"])
def test_the_masks_of_the_sample_are_decoded(scenes, damage):
    images = scenes(0, 1, 0)
    if damage == "value":
        save_image(images.masks[2], np.full((8, 8), 7, np.uint8))
    else:
        images.masks[2].write_bytes(images.masks[2].read_bytes()[:42])
    words = {"value": "holds 7, not in label set two", "cut off": "can't be read"}[damage]
    with pytest.raises(InputError, match=rf"1 of 3 images of d .*mask .*002\.png {words}"):
        check_dataset(images, "fail", "--skip")
    with pytest.raises(InputError):
        images.load(2)


def test_another_label_set_is_suggested_for_unknown_values(tmp_path):
    for number in range(2):
        save_image(tmp_path / "d" / "images" / f"{number}.png", np.zeros((4, 4, 3), np.uint8))
        save_image(tmp_path / "d" / "labels" / f"{number}.png", np.full((4, 4), 33, np.uint8))
    with pytest.raises(
        InputError, match=r"not in label set camvid11; all its values are in .*cityscapes19.*; name another"
    ):
        check_dataset(read_segmentation_dataset([tmp_path / "d"], "camvid11"), "fail", "--skip")


def test_ignored_pixels_are_said_and_many_are_a_warning(scenes, capfd):
    check_dataset(scenes(0, 1, 0, 9), "fail", "--skip")
    assert capfd.readouterr().err.splitlines()[-1] == "d: 25.0 % of the pixels are ignored"
    check_dataset(scenes(0, 9, 9, 9), "fail", "--skip")
    assert capfd.readouterr().err.splitlines()[-1].startswith("warning: d: 75.0 % of the pixels are ignored; ")


def test_a_sample_that_is_ignored_is_not_the_end(scenes, capfd, monkeypatch):
    monkeypatch.setattr(check, "SAMPLE", 3)
    check_dataset(scenes(9, 0, 9, 9, 9), "fail", "--skip")
    assert capfd.readouterr().err.splitlines()[-1].startswith("warning: d: 80.0 % of the pixels are ignored; ")


def test_masks_without_one_counted_pixel_are_an_error(scenes):
    with pytest.raises(InputError, match="not one pixel of the masks of d counts: all are ignored; "):
        check_dataset(scenes(9, 9), "skip", "--skip")


def test_train_ids_that_are_read_as_label_ids_are_told(tmp_path, capfd):
    values = np.arange(64, dtype=np.uint8).reshape(8, 8) % 19
    save_image(tmp_path / "d" / "images" / "0.png", np.zeros((8, 8, 3), np.uint8))
    save_image(tmp_path / "d" / "labels" / "0.png", values)
    check_dataset(read_segmentation_dataset([tmp_path / "d"], "cityscapes19"), "fail", "--skip")
    assert "look like train ids" in capfd.readouterr().err


def test_counts_are_kept_by_content(scenes, monkeypatch):
    check_dataset(scenes(0, 1, 0), "fail", "--skip")
    monkeypatch.setattr("csg.datasets.segmentation.read_mask", lambda path: pytest.fail("read again"))
    check_dataset(scenes(0, 1, 0, 1), "fail", "--skip")
