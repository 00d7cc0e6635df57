"""List files of images with masks."""

import unicodedata

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from csg.datasets.segmentation import read_segmentation_dataset
from csg.errors import InputError
from tests.helpers.mask_files import pairs_of, touch

PAIRS = {"images/1.jpg": "labels/1.png", "images/2.jpg": "labels/2.png"}


@pytest.fixture
def folder(tmp_path):
    return touch(tmp_path / "set", *PAIRS, *PAIRS.values())


def read(folder, text, name="train.txt", labels="cityscapes19"):
    (folder / name).parent.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(text.encode() if isinstance(text, str) else text)
    return read_segmentation_dataset([folder / name], labels)


@pytest.mark.parametrize(
    "text",
    [
        "images/1.jpg labels/1.png\nimages/2.jpg labels/2.png\n",
        "images/1.jpg\tlabels/1.png\r\nimages/2.jpg\tlabels/2.png\r\n",
        "image,mask\nimages/1.jpg,labels/1.png\n\nimages/2.jpg,labels/2.png",
        "mask;image\nlabels/1.png;images/1.jpg\nlabels/2.png;images/2.jpg\n",
        b'\xef\xbb\xbf# pairs\n"images/1.jpg" "labels/1.png"\nimages/2.jpg labels/2.png\n',
        "/images/1.jpg /labels/1.png\n/images/2.jpg /labels/2.png\n",
        "images/1.jpg\nimages/2.jpg\n",
        "1.jpg\n2.jpg\n",
        "1\n2\n",
        "/images/1.jpg\n./images/2.jpg\n",
        "images\\1.jpg\nimages\\2.jpg\n",
    ],
)
@pytest.mark.parametrize("name", ["train.txt", "lists/a/train.csv"])
def test_lists_of_every_form_give_the_same_pairs(folder, text, name):
    scenes = read(folder, text, name)
    assert pairs_of(scenes, folder) == PAIRS
    assert scenes.name == "train"


def test_absolute_paths_and_masks_anywhere(folder, tmp_path):
    touch(tmp_path, "RGB/1.png", "GT/LABELS/1.png")
    scenes = read(tmp_path, f"{folder}/images/1.jpg {folder}/labels/1.png\nRGB/1.png GT/LABELS/1.png\n", "x/list.txt")
    assert [str(mask) for mask in scenes.masks] == [f"{folder}/labels/1.png", f"{tmp_path}/GT/LABELS/1.png"]


def test_the_order_and_the_choice_are_those_of_the_list(folder):
    assert [path.name for path in read(folder, "2.jpg\n1.jpg\n").paths] == ["2.jpg", "1.jpg"]
    assert len(read(folder, "2.jpg\n")) == 1


@pytest.mark.parametrize(
    "line", ["bonn_1_leftImg8bit.png", "bonn/bonn_1_leftImg8bit.png", "val/bonn/bonn_1_leftImg8bit.png"]
)
def test_lists_of_cityscapes(tmp_path, line):
    image, mask = "leftImg8bit/val/bonn/bonn_1_leftImg8bit.png", "gtFine/val/bonn/bonn_1_gtFine_labelIds.png"
    touch(tmp_path, image, mask)
    if "/" in line:
        assert pairs_of(read(tmp_path, f"{line}\n", labels=None), tmp_path) == {image: mask}
    for text in (f"{image}\n", f"{image}\t{mask}\n"):
        scenes = read(tmp_path, text, labels=None)
        assert pairs_of(scenes, tmp_path) == {image: mask}
        assert scenes.labels.name == "cityscapes19"


def test_names_of_macos_and_of_linux_are_the_same(tmp_path):
    nfd, nfc = (unicodedata.normalize(form, "café") for form in ("NFD", "NFC"))
    folder = touch(tmp_path, f"images/{nfd}.jpg", f"labels/{nfc}.png")
    assert pairs_of(read(folder, f"{nfc}.jpg\n"), folder) == {f"images/{nfd}.jpg": f"labels/{nfc}.png"}


def test_repeated_lines_are_counted_and_said(folder):
    scenes = read(folder, "1.jpg\n2.jpg\n1.jpg\n1.jpg\n")
    assert len(scenes) == 4
    assert scenes.notes == ("2 lines name images that are listed before",)


def test_masks_that_images_share_are_said(folder):
    scenes = read(folder, "images/1.jpg labels/1.png\nimages/2.jpg labels/1.png\n")
    assert scenes.notes == ("2 images have 1 masks: some share one",)


STEMS = (
    st.text("ab é0_-#,;.", min_size=1, max_size=6)
    .map(str.strip)
    .filter(lambda name: name.strip(".") and name[0] != ".")
)


@given(st.lists(STEMS, min_size=1, max_size=4, unique=True), st.sampled_from(" \t,;"), st.booleans())
@settings(max_examples=40, deadline=None)
def test_what_is_written_is_read_whatever_the_names(tmp_path_factory, stems, delimiter, alone):
    folder = tmp_path_factory.mktemp("set")
    pairs = {f"images/{stem}.jpg": f"labels/{stem}.png" for stem in stems}
    touch(folder, *pairs, *pairs.values())
    lines = [[image] if alone else [image, mask] for image, mask in pairs.items()]
    text = "".join(delimiter.join(f'"{field}"' for field in line) + "\n" for line in lines)
    assert pairs_of(read(folder, text), folder) == pairs


def test_the_label_set_beside_the_list(folder):
    with pytest.raises(InputError, match="have no label set; name one with --labels"):
        read(folder, "1.jpg\n", labels=None)
    own = "name: own\nclasses: [{name: a, ids: [1], colour: [1, 2, 3]}, {name: b, ids: [2], colour: [4, 5, 6]}]\n"
    (folder / "labels.yaml").write_text(own)
    assert read(folder, "1.jpg\n", labels=None).labels.name == "own"
    assert read(folder, "1.jpg\n").notes == (f"the label set is own of {folder / 'labels.yaml'}, not cityscapes19",)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "lists no image"),
        ("1.jpg\n9.jpg\n8.jpg\n", r"line 2 names 9\.jpg, which is not in .*images; in all, 2 lines"),
        ("images/1.jpg labels/1.png 3\n", r"line 1 has 3 fields"),
        ("images/1.jpg labels/1.png\nimages/2.jpg\n", r"line 2 has no mask: images/2"),
        ("images/1.jpg labels/9.png\n", r"line 1 names labels/9\.png, which is neither in .* nor in a folder above"),
        ("1.jpg labels/1.png\n1.jpg labels/2.png\n", r"line 1 names 1\.jpg, which is neither"),
        ("images/1.jpg labels/1.png\nimages/1.jpg labels/2.png\n", r"line 2: image .*2\.png, and in line 1 mask"),
        ("labels/1.png\n", r"line 1 names .*labels/1\.png without a mask, and it is in no folder images/"),
        ("a.jpg", r"line 1 names a\.jpg, which is .*images/day/a\.jpg or .*images/night/a\.jpg"),
        (b"\x89PNG\r\n\x1a\n\0\0\0", "is not text"),
    ],
)  # fmt: skip
def test_what_is_wrong_in_a_list_is_named(folder, text, message):
    touch(folder, "images/day/a.jpg", "images/night/a.jpg")
    with pytest.raises(InputError, match=message):
        read(folder, text)
