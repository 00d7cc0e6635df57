"""The pictures of an item, as a browser shows them: the whole image, and what is around the point."""

from __future__ import annotations

import asyncio
import io
from dataclasses import dataclass

from PIL import Image

from csg.errors import InputError
from csg.images import decode
from csg_serve.evaluate.labelling.task import AskedItem

LONGER_SIDE = 1600
"""Maximum side of the whole image in pixels; a larger one is reduced."""
SMALL = 512
"""Up to this side an image is sent without loss, as PNG; a larger one as JPEG."""
QUALITY = 90
"""Quality of these JPEG files, 0 to 100."""
WINDOWS = (33, 65, 129, 257, 513)
"""Sides in pixels of the squares around a point, from near to far. They are odd: the point's pixel is in the middle."""
GREY = (128, 128, 128)
"""Colour beyond the edge of the image."""
KEPT = 12
"""Number of items whose pictures are kept."""


@dataclass(frozen=True)
class EncodedPicture:
    """An image file in memory."""

    content: bytes
    """The bytes of the file."""
    kind: str
    """Its MIME type."""


@dataclass(frozen=True)
class ItemPicture:
    """What is shown of an item."""

    size: tuple[int, int]
    """Width and height of the upright image in its file."""
    whole: EncodedPicture
    """The whole image, reduced if it is large."""
    windows: tuple[EncodedPicture, ...]
    """The squares around the point, one for each of WINDOWS; none without a point."""


def picture_of(item: AskedItem) -> ItemPicture:
    """Decode an image, and encode what is shown of it.

    Raises:
        InputError: the image can't be read, or does not have the point.
    """
    image = decode(item.image)
    if item.point and not (item.point[0] < image.width and item.point[1] < image.height):
        what = f"image {item.image} has {image.width} x {image.height} pixels, not the point {item.point}"
        raise InputError(what, "it was replaced since the list was made")
    windows = tuple(_encoded(_around(image, item.point, side)) for side in WINDOWS) if item.point else ()
    return ItemPicture(image.size, _encoded(_reduced(image)), windows)


def _reduced(image: Image.Image) -> Image.Image:
    scale = LONGER_SIDE / max(image.size)
    if scale >= 1:
        return image
    width, height = (max(1, round(side * scale)) for side in image.size)
    return image.resize((width, height), Image.Resampling.LANCZOS)


def _around(image: Image.Image, point: tuple[int, int], side: int) -> Image.Image:
    """The square of a side around a point."""
    left, top = (place - side // 2 for place in point)
    box = (max(left, 0), max(top, 0), min(left + side, image.width), min(top + side, image.height))
    window = Image.new("RGB", (side, side), GREY)
    window.paste(image.crop(box), (box[0] - left, box[1] - top))
    return window


def _encoded(image: Image.Image) -> EncodedPicture:
    stream = io.BytesIO()
    if max(image.size) <= SMALL + 1:
        image.save(stream, "PNG")
        return EncodedPicture(stream.getvalue(), "image/png")
    image.save(stream, "JPEG", quality=QUALITY)
    return EncodedPicture(stream.getvalue(), "image/jpeg")


class ItemPictures:
    """The pictures of the items that are shown next, each decoded once, in threads.

    Args:
        items: the items of the task.
    """

    def __init__(self, items: tuple[AskedItem, ...]):
        self._items = items
        self._kept: dict[int, asyncio.Task[ItemPicture]] = {}

    async def of(self, item: int) -> ItemPicture:
        """The pictures of an item, by its number.

        Raises:
            InputError: as `picture_of`.
        """
        if item not in self._kept:
            self._kept[item] = asyncio.create_task(asyncio.to_thread(picture_of, self._items[item]))
            while len(self._kept) > KEPT:
                del self._kept[next(iter(self._kept))]
        return await asyncio.shield(self._kept[item])
