"""The tags of TIFF files and of EXIF data, checked before Pillow reads them."""

from __future__ import annotations

import struct
from collections.abc import Iterator

MAX_TAGS = 4096
"""Maximum number of tags of a TIFF file's first directory, or of EXIF data."""
MAX_NUMBERS = 2**20
"""Maximum number of bytes of numbers in TIFF tags, and so of strips: Pillow makes an object of each number."""
_UNITS = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8}
_NUMBERS = frozenset(_UNITS) - {1, 2, 7}
_INTEGERS = {3: "H", 4: "I", 13: "I", 16: "Q"}


def at_most(number: int, maximum: int, what: str) -> None:
    """Refuse a number above a maximum.

    Raises:
        ValueError: names both, and what it is a number of.
    """
    if number > maximum:
        raise ValueError(f"{what}, the maximum is {maximum}")


def check_tags(content: bytes) -> dict[int, int]:
    """Check the first directory of a TIFF file, or of EXIF data.

    Returns:
        The first number of each tag of whole numbers.

    Raises:
        ValueError: reading them would take more memory than the file has, or make too many numbers.
    """
    for _ in range(2):  # the second prefix is a fault of some cameras, which Pillow passes over too
        content = content.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(content[:2])
    if order is None or len(content) < 8:
        return {}
    big = content[2] == 43
    entry, room = struct.Struct(order + ("HHQ8s" if big else "HHI4s")), 8 if big else 4
    values: dict[int, int] = {}
    total = numbers = 0
    for tag, kind, count, data in _entries(content, order, entry):
        size = count * _UNITS.get(kind, 0)
        if size > room:
            (offset,) = struct.unpack(order + ("Q" if big else "I"), data)
            if offset + size > len(content):
                continue
            data, total, numbers = content[offset : offset + 8], total + size, numbers + (kind in _NUMBERS) * size
            at_most(numbers, MAX_NUMBERS, f"{numbers} bytes of numbers in its tags")
            at_most(total, len(content), f"{total} bytes of tags")
        if size and kind in _INTEGERS:
            number = struct.unpack_from(order + _INTEGERS[kind], data)[0]
            values[tag] = max(values.get(tag, 0), number)
    return values


def _entries(content: bytes, order: str, entry: struct.Struct) -> Iterator[tuple[int, int, int, bytes]]:
    try:
        big = entry.size == 20  # BigTIFF
        (place,) = struct.unpack_from(order + ("Q" if big else "I"), content, 8 if big else 4)
        (count,) = struct.unpack_from(order + ("Q" if big else "H"), content, place)
        place += 8 if big else 2
        at_most(count, MAX_TAGS, f"{count} tags")
        for number in range(count):
            yield entry.unpack_from(content, place + number * entry.size)
    except (struct.error, OverflowError):  # it ends in the middle of the directory
        return
