"""Ten thousand requests, of which every twentieth is no image."""

import io

from PIL import Image

from tests.helpers.tiny_bundle import COLOURS

COUNT, BROKEN_EVERY = 10_000, 20  # 5 % of them


def png(colour, size=(6, 5)):
    stream = io.BytesIO()
    Image.new("RGB", size, colour).save(stream, "PNG")
    return stream.getvalue()


GOOD = [png(colour) for colour in COLOURS]
BROKEN = [b"", b"hello", GOOD[0][:40], GOOD[1][:45], GOOD[2][:45] + b"\0" * 20]


def broken(number):
    return number % BROKEN_EVERY == 7


def files_of_requests():
    for number in range(COUNT):
        yield BROKEN[number // BROKEN_EVERY % len(BROKEN)] if broken(number) else GOOD[number % 3]
