"""An answer as a small picture with bars, for notebooks: HTML that needs nothing else, and no script."""

from __future__ import annotations

import base64
import html
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from PIL import Image

from csg.card import Colour
from csg.errors import InputError, printable

SIDE = 192
"""Longer side of the image in pixels."""
BAR = 160
"""Width of a full bar in pixels."""
GREY: Colour = (127, 127, 127)
"""Colour of bars: visible on light and on dark pages."""


@dataclass(frozen=True)
class Bar:
    """A class, and its share."""

    label: str
    """Name of the class."""
    share: float
    """Its probability or its share of the pixels, 0 to 1."""
    colour: Colour = GREY
    """Colour of the bar."""


def picture_html(name: str, draw: Callable[[], Image.Image], bars: Sequence[Bar]) -> str:
    """The picture of an answer.

    Args:
        name: of the image.
        draw: returns the image; if it raises InputError, its message takes the image's place.
        bars: the classes, the largest first.
    """
    try:
        picture = f'<img alt="" src="{_data_url(draw())}">'
    except InputError as error:
        picture = f"<em>{_escaped(error.message)}</em>"
    rows = "".join(_row(bar) for bar in bars)
    return (
        '<div style="display:flex;gap:12px;align-items:center">'
        f'{picture}<div style="min-width:0"><div style="overflow-wrap:anywhere">{_escaped(name)}</div>'
        f'<table style="color:inherit;font-size:inherit">{rows}</table></div></div>'
    )


def _row(bar: Bar) -> str:
    width, colour = max(1, round(BAR * bar.share)), "#{:02x}{:02x}{:02x}".format(*bar.colour)
    return (
        f'<tr><td style="text-align:left">{_escaped(bar.label)}</td>'
        f'<td style="text-align:left"><div style="width:{width}px;height:12px;background:{colour}"></div></td>'
        f"<td>{100 * bar.share:.1f} %</td></tr>"
    )


def _data_url(image: Image.Image) -> str:
    """A PNG file of the image, reduced to SIDE or enlarged by a whole factor, as a URL that holds it."""
    from csg.overlays import png_bytes  # which imports a YAML parser

    longer = max(image.size)
    if longer > SIDE:
        width, height = (max(1, round(side * SIDE / longer)) for side in image.size)
        image = image.resize((width, height), Image.Resampling.BILINEAR, reducing_gap=2)
    elif factor := SIDE // longer:
        image = image.resize((image.width * factor, image.height * factor), Image.Resampling.NEAREST)
    return f"data:image/png;base64,{base64.b64encode(png_bytes(image)).decode()}"


def _escaped(text: str) -> str:
    return html.escape(printable(text))
