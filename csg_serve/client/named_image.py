"""An image with its name, as it goes to a model."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from csg.errors import InputError
from csg.images import ImageSource


@dataclass(frozen=True)
class NamedImage:
    """An image, and what it is called."""

    name: str
    """How results and errors name it: its path, its address, or `clip.mp4#t=2.000` for the frame at two seconds."""
    stem: str
    """Start of the names of files that are written about it."""
    source: ImageSource | InputError
    """The image, or why there is none."""

    def read(self) -> ImageSource:
        """The image; raises the InputError if there is none."""
        if isinstance(self.source, InputError):
            raise self.source
        return self.source


AnyImage = ImageSource | NamedImage
"""An image file, the content of one, a decoded image, or one of them with its name."""


def named(image: AnyImage) -> NamedImage:
    """The image with its name: of a file its path."""
    if isinstance(image, NamedImage):
        return image
    if isinstance(image, Path):
        return NamedImage(str(image), image.stem, image)
    return NamedImage("from memory", "image", image)


def no_image(name: str, error: InputError) -> NamedImage:
    """What stands in place of an image that there is not."""
    return NamedImage(name, "", error)
