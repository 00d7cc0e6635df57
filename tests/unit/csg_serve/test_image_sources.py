"""Words become images: files, folders, patterns, standard input, addresses and videos, and what is refused."""

import asyncio
import io
import sys
from contextlib import aclosing
from pathlib import Path

import av
import numpy as np
import pytest

from csg.errors import InputError, UsageError
from csg.images import decode
from csg_serve.client.image_sources import named_images
from tests.helpers.image_files import encoded, noise
from tests.helpers.web_server import answering, reply

PROBLEMS = ("not one of http", "redirects more than 5", "more than 2000 bytes", "HTTP status 404")


def images(*words, **options):
    async def read():
        async with aclosing(named_images(words, **options)) as found:
            return [one async for one in found]

    return asyncio.run(read())


def names(*words, **options):
    return [one.name for one in images(*words, **options)]


def error(*words):
    (one,) = images(*words)
    with pytest.raises(InputError) as caught:
        decode(one.read(), one.name)
    return str(caught.value)


@pytest.fixture
def photos():
    for name in ("b.png", "a.JPG", "notes.txt", ".hidden.png", "sub/c.webp", ".git/d.png", "sub/x\ny,z.png"):
        Path("photos", name).parent.mkdir(parents=True, exist_ok=True)
        Path("photos", name).write_bytes(encoded(noise()))


def write_video(path, frames=20, rate=10):
    """Frames of 48 x 32 pixels, brighter from one to the next in the upper half, noise in the lower one."""
    random = np.random.default_rng(0)
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=rate)
        stream.width, stream.height, stream.pix_fmt = 48, 32, "yuv420p"
        for number in range(frames):
            pixels = random.integers(0, 256, (32, 48, 3), np.uint8)
            pixels[:16] = 12 * number % 256
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels)))
        container.mux(stream.encode())


def test_a_folder_is_read_in_order_and_what_was_passed_over_is_counted(photos, capsys):
    assert names("photos") == ["photos/a.JPG", "photos/b.png", "photos/sub/c.webp", "photos/sub/x\ny,z.png"]
    assert "photos: 3 files passed over: 2 hidden, 1 .txt" in capsys.readouterr().err


def test_a_pattern_is_matched_where_the_shell_did_not(photos):
    assert names("photos/*.png") == ["photos/b.png"]
    assert names("photos/**/*[cy]*") == ["photos/sub/c.webp", "photos/sub/x\ny,z.png"]
    assert "photos/*.bmp does not exist" in error("photos/*.bmp")
    Path("[1].png").write_bytes(encoded(noise()))
    assert names("[1].png") == ["[1].png"]


def test_a_word_without_an_image_does_not_end_the_rest(photos):
    Path("empty").mkdir()
    found = images("empty", "photos/b.png")
    assert "no image in empty" in str(found[0].source)
    assert found[1].name == "photos/b.png"


def test_standard_input_is_one_image(monkeypatch):
    content = encoded(noise())
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(content)))
    (one,) = images("-")
    assert (one.name, one.stem, one.source) == ("-", "stdin", content)
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"a.png\nb.png\n")))
    assert "standard input holds no image; give names of files to xargs" in error("-")
    assert "nothing is on standard input" in error("-")
    monkeypatch.setattr(sys, "stdin", None)
    assert "nothing is on standard input" in error("-")
    with pytest.raises(UsageError, match="named twice"):
        images("-", "-")


@pytest.mark.parametrize("word", ["file:///etc/passwd", "ftp://a/b.png", "S3://bucket/a.png", "data://x"])
def test_only_addresses_of_the_web_are_read(word):
    with pytest.raises(UsageError, match="addresses are not"):
        images("a.png", word)


def test_frames_of_a_video_are_named_by_their_time():
    write_video(Path("clip.mp4"))
    assert names("clip.mp4") == ["clip.mp4#t=0.000", "clip.mp4#t=1.000"]
    assert len(names("clip.mp4", every=0)) == 20
    taken = images("clip.mp4", every=0.5)
    assert [one.stem for one in taken] == ["clip-0.000s", "clip-0.500s", "clip-1.000s", "clip-1.500s"]
    brightness = [np.asarray(one.source)[:12].mean() for one in taken]
    np.testing.assert_allclose(brightness, [0, 60, 120, 180], atol=4)
    with pytest.raises(UsageError, match="invalid interval"):
        images("clip.mp4", every=-1)


def test_a_broken_video_gives_the_frames_before_the_damage_and_an_error():
    Path("no.mp4").write_bytes(b"#EXTM3U\n#EXTINF:1,\nfile:///etc/passwd\n")
    assert "video no.mp4 can't be read" in error("no.mp4")
    assert "video gone.mkv does not exist" in error("gone.mkv")
    write_video(Path("clip.mp4"), frames=40)
    content = bytearray(Path("clip.mp4").read_bytes())
    middle = len(content) // 2
    content[middle : middle + 999] = bytes(7 * n % 256 for n in range(999))
    Path("clip.mp4").write_bytes(content)
    *frames, broken = images("clip.mp4", "a.png")[:-1]
    assert frames[0].name == "clip.mp4#t=0.000"
    assert "video clip.mp4 can't be read after" in str(broken.source)


def test_reading_stops_when_nobody_asks_any_more():
    write_video(Path("clip.mp4"))

    async def first():
        async with aclosing(named_images(["clip.mp4"], every=0)) as found:
            return await anext(found)

    assert asyncio.run(first()).source.size == (48, 32)


def test_an_address_is_downloaded_and_named_without_its_password():
    with answering(reply(200, b"content")) as server:
        host = f"127.0.0.1:{server.server_port}"
        (one,) = images(f"http://me:secret@{host}/a%20b.png?size=1")
    assert (one.name, one.stem, one.source) == (f"http://{host}/a%20b.png?size=1", "a b", b"content")


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "LOCALHOST"])
def test_no_proxy_is_used_for_this_machine(monkeypatch, host):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with answering(reply(200, b"content")) as server:
        (one,) = images(f"http://{host}:{server.server_port}/a.png")
        (other,) = images(f"http://example.test:{server.server_port}/a.png")
    assert one.source == b"content"
    assert "127.0.0.1:1" in str(other.source)


def test_addresses_come_in_order_with_those_that_fail(monkeypatch):
    def answer(handler):
        name = handler.path.strip("/")
        if name == "file":
            reply(302, location="file:///etc/passwd")(handler)
        elif name == "loop":
            reply(302, location="/loop")(handler)
        elif name == "large":
            reply(200, bytes(3000))(handler)
        else:
            reply(200 if name.isdigit() else 404, name.encode())(handler)

    monkeypatch.setattr("csg_serve.client.web_images.MAX_DOWNLOAD", 2000)
    Path("a.png").touch()
    with answering(answer) as server:
        here = f"http://127.0.0.1:{server.server_port}"
        good, bad = [f"{here}/{n}" for n in range(20)], [f"{here}/{n}" for n in ("file", "loop", "large", "no")]
        found = images(*good[:10], "a.png", *good[10:], *bad, "http://[", "http://127.0.0.1:1/a.png")
    assert [one.name for one in found[:21]] == [*good[:10], "a.png", *good[10:]]
    contents = [b"%d" % n for n in range(20)]
    assert [one.source for one in found[:21]] == [*contents[:10], Path("a.png"), *contents[10:]]
    for one, words in zip(found[21:], (*PROBLEMS, "not one of http", "Cannot connect"), strict=True):
        assert words in str(one.source)
        assert one.name in str(one.source)
