"""What a program may give as images, and what it is told of anything else."""

import asyncio
import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from csg.errors import UsageError
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
        ([pixels(20, 30, 3), pixels(20, 30)], r"image number 2 is an array of uint8 \(20, 30\)"),
        (Image.new("RGB", (0, 5)), "the image has no pixels: it is 0 x 5"),
        (7, "int is not an image; give a path"),
        (None, "NoneType is not an image"),
        ({"a.jpg": 1}, "dict is not an image"),
        (io.BytesIO(b"content"), "_io.BytesIO is not an image"),
        ([["a.jpg"]], "image number 1 is list, which is not an image"),
        ("", "'' is not the path of an image"),
        (["a.jpg", ""], "'' is not the path of an image"),
    ],
)
def test_what_is_no_image_is_refused_with_what_to_do(given, says):
    with pytest.raises(UsageError, match=says):
        given_images(given)
    if isinstance(given, list):  # an iterator is checked as it is read
        with pytest.raises(UsageError, match=says):
            asyncio.run(listed(given_images(iter(given))[0]))


def read(given):
    """The images, and whether several may be meant."""

    images, several = given_images(given)
    return asyncio.run(listed(images)), several


def test_a_word_is_a_file_a_folder_or_a_pattern(tmp_path):
    for name in ("b.png", "a.JPG", "deep/c.png", "[1].png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()

    def names(given):
        found, several = read(given)
        return sorted(Path(one.name).relative_to(tmp_path).as_posix() for one in found), several

    assert names(tmp_path / "b.png") == (["b.png"], False)
    assert names(str(tmp_path / "[1].png")) == (["[1].png"], False)
    assert names(tmp_path) == (["[1].png", "a.JPG", "b.png", "deep/c.png"], True)
    assert names(f"{tmp_path}/*.png") == (["[1].png", "b.png"], True)
    assert names(f"{tmp_path}/deep/*") == (["deep/c.png"], True)
    assert names([tmp_path / "b.png", str(tmp_path / "deep")]) == (["b.png", "deep/c.png"], True)
    assert names(tmp_path / name for name in ("b.png", "deep")) == (["b.png", "deep/c.png"], True)


def test_an_iterator_is_read_no_further_than_it_is_asked_for():
    taken = []

    async def first():
        images, _ = given_images(taken.append(number) or pixels(2, 2, 3) for number in range(9))
        return await anext(images)

    assert asyncio.run(first()).name == "number 1"
    assert taken == [0]


def test_an_array_is_copied_so_that_a_later_change_does_not_reach_the_answer():
    array = np.full((4, 5, 3), 9, np.uint8)
    images, several = given_images(array[:, ::-1])
    array[:] = 0
    (image,) = asyncio.run(listed(images))
    assert not several
    assert (image.name, image.source.size, image.source.getpixel((0, 0))) == ("from memory", (5, 4), (9, 9, 9))


async def listed(images):
    return [image async for image in images]
