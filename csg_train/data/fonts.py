"""The font faces that the embedded synthetic datasets are drawn with."""

from __future__ import annotations

import importlib.metadata
from functools import cache
from pathlib import Path

from csg.errors import InputError
from csg.extras import install_command

PACKAGES = (
    "font-source-sans-pro",
    "font-source-serif-pro",
    "font-hanken-grotesk",
    "font-manrope",
    "font-caladea",
    "font-amatic-sc",
    "font-fredoka-one",
    "font-intuitive",
)
"""Packages with fonts; the faces that come with matplotlib are used too."""
WITHOUT_DIGITS = ("DejaVuSansDisplay", "DejaVuSerifDisplay", "LastResort", "STIXNonUni", "STIXSiz", "cmex10", "cmsy10")
"""Faces of matplotlib without the ten digits."""


@cache
def font_faces() -> tuple[Path, ...]:
    """The files of all installed font faces that have the ten digits, in a fixed order.

    Raises:
        InputError: a font package is not installed.
    """
    faces: list[Path] = []
    for package in PACKAGES:
        try:
            files = importlib.metadata.files(package) or []
        except importlib.metadata.PackageNotFoundError:
            raise InputError(f"the embedded digits need the font package {package}", install_command("train")) from None
        fonts = sorted(Path(str(f.locate())) for f in files if f.suffix in (".ttf", ".otf"))
        truetype = [f for f in fonts if f.suffix == ".ttf"]
        faces += truetype or fonts
    import matplotlib

    faces += sorted((Path(matplotlib.get_data_path()) / "fonts" / "ttf").glob("*.ttf"))
    return tuple(f for f in faces if not f.stem.startswith(WITHOUT_DIGITS))
