"""What a program may give as images, and what it is told of anything else."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csg.errors import InputError, UsageError
from csg_serve.client.inputs import given_images


def pixels(*shape, kind=np.uint8):
    return np.zeros(shape, kind)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        (pixels(3, 20, 30), "put the channels last"),
        (pixels(20, 30), "give RGB: Image.fromarray"),
        (pixels(20, 30, 4), "give RGB: Image.fromarray"),
        (pixels(20, 30, 1), "give RGB: Image.fromarray"),
        (pixels(2, 20, 30, 3), r"give a list of images: list\(array\)"),
        (pixels(20, 30, 3, kind=np.float32), "give values from 0 to 255 as uint8"),
        (pixels(20, 30, 3, kind=bool), "give values from 0 to 255 as uint8"),
        (pixels(0, 30, 3), "it has no pixels"),
        ([pixels(20, 30, 3), pixels(20, 30)], r"image 2 is an array of uint8 \(20, 30\)"),
        (7, "int is not an image; give a path"),
        (None, "NoneType is not an image"),
        ({"a.jpg": 1}, "dict is not an image"),
        (io.BytesIO(b"content"), "_io.BytesIO is not an image"),
        ([["a.jpg"]], "image 1 is list, which is not an image"),
        ("", "the path of an image is empty"),
        (["a.jpg", ""], "the path of an image is empty"),
    ],
)
def test_what_is_no_image_is_refused_with_what_to_do(given, says):
    with pytest.raises(UsageError, match=says):
        given_images(given)


def test_a_word_is_a_file_a_folder_or_a_pattern(tmp_path):
    for name in ("b.png", "a.JPG", "deep/c.png", "[1].png", "notes.txt", ".hidden.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def names(words):
        found, several = given_images(words)
        return [Path(one.name).relative_to(tmp_path).as_posix() for one in found], several

    assert names(tmp_path / "b.png") == (["b.png"], False)
    assert names(str(tmp_path / "[1].png")) == (["[1].png"], False)
    assert names(tmp_path) == (["[1].png", "a.JPG", "b.png", "deep/c.png"], True)
    assert names(f"{tmp_path}/*") == (["[1].png", "a.JPG", "b.png"], True)
    assert names(tmp_path / "**" / "c*") == (["deep/c.png"], True)
    assert names([tmp_path / "b.png", tmp_path / "deep"]) == (["b.png", "deep/c.png"], True)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match=r"no image in .*empty/"):
        given_images(tmp_path / "empty")
    with pytest.raises(InputError, match=r"no image matches .*\*\.gif; check the pattern"):
        given_images(tmp_path / "*.gif")


def test_an_array_is_copied_so_that_a_later_change_does_not_reach_the_answer():
    array = np.full((4, 5, 3), 9, np.uint8)
    ((given,), several) = given_images(array[:, ::-1])
    array[:] = 0
    assert not several
    assert (given.name, given.image.size, given.image.getpixel((0, 0))) == ("image 1", (5, 4), (9, 9, 9))
    assert isinstance(given.image, Image.Image)
