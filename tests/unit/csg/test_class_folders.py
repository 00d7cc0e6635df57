"""Class folders as people have them: what is an image is read, what is not is counted, and a name is checked first."""

import os
import unicodedata

import pytest
from PIL import Image, features

from csg.datasets.classification import read_classification_dataset
from csg.errors import InputError
from csg.images import FORMATS, SUFFIXES, decode

IMAGE = Image.new("RGB", (8, 6), "red")


def write(*paths):
    """Write an image at each path; one that can't be an image is written as text."""
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        if path.suffix.lower() in SUFFIXES:
            path.write_bytes(b"")
        else:
            path.write_text("no image")


@pytest.fixture
def data(tmp_path):
    """Two classes of one image each."""
    write(tmp_path / "data" / "cat" / "0.png", tmp_path / "data" / "dog" / "0.png")
    return tmp_path / "data"


def test_images_in_sub_folders_and_linked_folders_are_read(data, tmp_path):
    write(data / "cat" / "indoor" / "1.jpg", data / "cat" / "a" / "b" / "c" / "2.JPG", tmp_path / "more" / "3.png")
    (data / "dog" / "linked").symlink_to(tmp_path / "more")
    (data / "bird").symlink_to(tmp_path / "more")
    (data / "cat" / "round").symlink_to(data / "cat")
    (data / "cat" / "up").symlink_to(data)
    read = read_classification_dataset([data])
    assert read.classes == ("bird", "cat", "dog")
    assert [path.relative_to(data).as_posix() for path in read.paths] == [
        "bird/3.png",
        "cat/0.png",
        "cat/a/b/c/2.JPG",
        "cat/indoor/1.jpg",
        "dog/0.png",
        "dog/linked/3.png",
    ]
    assert read.labels.tolist() == [0, 1, 1, 1, 2, 2]
    folders = f"{data}/cat/a/b/c, {data}/cat/indoor, {data}/dog/linked"
    assert read.notes == (f"images in 3 folders inside class folders are read too: {folders}",)


def test_files_passed_over_are_counted(data):
    write(data / "cat" / "x.heic", data / "dog" / "y.HEIC", data / "dog" / "none", data / "readme.txt", data / "z.jpg")
    write(data / "cat" / "._0.png", data / "cat" / ".DS_Store", data / "cat" / "Thumbs.db", data / "desktop.ini")
    write(data / "__MACOSX" / "cat" / "0.png", data / ".ipynb_checkpoints" / "0.png")
    read = read_classification_dataset([data])
    assert read.classes == ("cat", "dog")
    assert len(read) == 2
    assert read.notes == (
        "11 files passed over: 6 hidden, 2 .heic, 1 .txt, 1 image outside the class folders, 1 without an ending",
    )


@pytest.mark.parametrize("ending", sorted(SUFFIXES))
def test_every_ending_that_is_read_is_decoded(ending, tmp_path):
    kind = Image.registered_extensions()[ending]
    assert kind in FORMATS
    if kind == "WEBP" and not features.check("webp"):
        pytest.skip("this Pillow has no WebP")
    mode = {".pgm": "L", ".pbm": "1"}.get(ending, "RGB")
    IMAGE.convert(mode).save(tmp_path / f"a{ending}", kind)
    assert decode(tmp_path / f"a{ending}").size == IMAGE.size


def test_an_empty_class_folder_says_what_lies_in_it(data):
    write(*(data / "bird" / f"{number}.heic" for number in range(5)))
    with pytest.raises(InputError, match=r"bird holds no image, but 5 files: 5 \.heic; add images to it or remove it"):
        read_classification_dataset([data])
    real = read_classification_dataset([data], ["cat", "bird", "dog"])
    assert real.labels.tolist() == [0, 2]
    assert real.notes == ("5 files passed over: 5 .heic", "no image of class bird")


@pytest.mark.parametrize(
    "name", ["cat\nblack", "a\x7fb", "a\x85b", "a\u2028b", "\x1b[31mred", " ", "x" * 201, os.fsdecode(b"\xb0\xed")]
)
def test_a_folder_that_can_name_no_class_is_refused_when_it_is_read(data, name):
    write(data / name / "0.png")
    with pytest.raises(InputError, match=r"class folder .*: a class name ") as error:
        read_classification_dataset([data])
    assert str(error.value).isprintable()


def test_composed_and_decomposed_names_are_one_class(tmp_path):
    composed, decomposed = (unicodedata.normalize(form, "고양이 né") for form in ("NFC", "NFD"))
    write(tmp_path / "a" / composed / "0.png", tmp_path / "a" / "dog" / "0.png")
    write(tmp_path / "b" / decomposed / "0.png", tmp_path / "b" / "dog" / "0.png")
    read = read_classification_dataset([tmp_path / "a", tmp_path / "b"])
    assert read.classes == ("dog", composed)
    assert read_classification_dataset([tmp_path / "b"], read.classes).labels.tolist() == [0, 1]
    write(tmp_path / "a" / decomposed / "0.png")
    with pytest.raises(InputError, match="in two forms of Unicode"):
        read_classification_dataset([tmp_path / "a"])


def test_file_names_of_any_bytes_are_read(data):
    write(data / "cat" / os.fsdecode(b"caf\xe9.png"))
    read = read_classification_dataset([data])
    assert len(read) == 3
    assert read.fingerprint()


def test_folders_that_hold_no_classes_are_refused(tmp_path):
    write(tmp_path / "splits" / "train" / "cat" / "0.png", tmp_path / "splits" / "val" / "cat" / "0.png")
    with pytest.raises(InputError, match=r"holds the splits train, val; name one, for example .*/splits/train"):
        read_classification_dataset([tmp_path / "splits"])
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(InputError, match=r"data .*pipe is neither a folder nor a file"):
        read_classification_dataset([tmp_path / "pipe"])
    write(tmp_path / "flat" / "0.png", tmp_path / "flat" / "1.png")
    with pytest.raises(InputError, match="holds 0 class folders, and images outside them: 2"):
        read_classification_dataset([tmp_path / "flat"])


def test_a_real_set_may_lack_classes_but_not_have_others(data, tmp_path):
    write(tmp_path / "real" / "dog" / "0.png")
    real = read_classification_dataset([tmp_path / "real"], ["bird", "cat", "dog"])
    assert real.labels.tolist() == [2]
    assert real.notes == ("no image of class bird, cat",)
    assert read_classification_dataset([tmp_path / "real", data], ["bird", "cat", "dog"]).labels.tolist() == [2, 1, 2]
    write(tmp_path / "real" / "wolf" / "0.png")
    with pytest.raises(InputError, match="only in real: wolf; missing in real: bird, cat"):
        read_classification_dataset([tmp_path / "real"], ["bird", "cat", "dog"])


def test_a_dataset_is_named_as_its_folder_was_given(data, tmp_path, monkeypatch):
    (tmp_path / "pictures").symlink_to(data)
    assert read_classification_dataset([tmp_path / "pictures"]).name == "pictures"
    assert read_classification_dataset([tmp_path / "pictures"]).paths[0].parent.parent == tmp_path / "pictures"
    monkeypatch.chdir(data)
    assert read_classification_dataset(["."]).name == "data"
