"""Where images come from: words of a command or a program become a stream of named images, in constant memory."""

from __future__ import annotations

import asyncio
import glob
import os
import re
import sys
from collections import Counter, deque
from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import AsyncExitStack, aclosing, suppress
from pathlib import Path

from csg.console import log
from csg.datasets.listing import describe_passed_over, ending_of, walk
from csg.errors import InputError, UsageError
from csg.image_headers import read_header
from csg.images import MAX_FILE, SUFFIXES, read_file
from csg_serve.client.named_image import NamedImage, named, no_image

STDIN = "-"
"""The word for standard input, which holds one image."""
VIDEO_SUFFIXES = frozenset(
    {".mp4", ".m4v", ".mov", ".mkv", ".webm", ".avi", ".mpg", ".mpeg", ".ts", ".mts", ".m2ts"}
    | {".wmv", ".flv", ".ogv", ".3gp"}
)
"""File names that end so are read as videos."""
DOWNLOADS = 8
"""Web addresses that are downloaded at the same time."""
EVERY_S = 1.0
"""Seconds between the frames of a video that are taken."""


async def named_images(words: Sequence[str | Path], every: float = EVERY_S) -> AsyncGenerator[NamedImage, None]:
    """The images that words name, in order, read no further than they are asked for.

    A word is one of these; a Path is always a file, a folder or a video:

    - a file, or a video file, of which frames are taken;
    - a folder: its images and those of its sub-folders; the log counts the other files, hidden ones included;
    - a pattern with `*`, `?` or `[`, where `**` crosses folders;
    - `-`: one image on standard input;
    - an address that begins with http:// or https://.

    What can't be read (a word without an image, a broken video, an address without an answer) is a NamedImage whose
    source is the error. The other images come all the same.

    Args:
        words: the words.
        every: seconds between the frames of a video that are taken; 0: every frame.

    Raises:
        UsageError: a word is an address of another kind, such as ftp://; `every` is negative; a video is named and PyAV
            is not installed.

    Example:
        >>> async with open_bundle(Path("bundles/digits-csg-1")) as model:
        ...     async with aclosing(named_images(["photos/", "clip.mp4"])) as images:
        ...         async for prediction in stream(model, images):
        ...             ...
    """
    check_words(words, every)
    downloads: deque[asyncio.Task[NamedImage]] = deque()
    async with AsyncExitStack() as stack, aclosing(_expanded(words, every)) as found:
        fetch = None
        try:
            async for one in found:
                if isinstance(one, NamedImage):
                    while downloads:
                        yield await downloads.popleft()
                    yield one
                    continue
                if fetch is None:
                    from csg_serve.client.web_images import web_session  # imports aiohttp, which is slow

                    fetch = await stack.enter_async_context(web_session())
                downloads.append(asyncio.create_task(fetch(one)))
                if len(downloads) == DOWNLOADS:
                    yield await downloads.popleft()
            while downloads:
                yield await downloads.popleft()
        finally:
            for task in downloads:
                task.cancel()
            await asyncio.gather(*downloads, return_exceptions=True)


def check_words(words: Sequence[str | Path], every: float = EVERY_S) -> None:
    """Check what can be checked before an image is read; raises as `named_images`."""
    if not 0 <= every < float("inf"):
        raise UsageError(f"invalid interval {every:g} between frames", "give --every in seconds; 0 takes every frame")
    for word in words:
        scheme = isinstance(word, str) and re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", word)
        if scheme and scheme[1].lower() not in ("http", "https"):
            raise UsageError(f"{word} can't be read: {scheme[1]}:// addresses are not", "give a file, or http(s)://")
    if [word for word in words if word == STDIN][1:]:
        raise UsageError("standard input (-) is named twice", "it holds one image")
    if any(_is_video(Path(word)) for word in words if not _is_address(word)):
        from csg_serve.client.video_frames import check_installed

        check_installed()


def may_name_images(word: str) -> bool:
    """Whether a word names something that exists, a pattern, an address or standard input, or ends like an image."""
    path = Path(word)
    other = word == STDIN or "://" in word or glob.has_magic(word) or os.path.lexists(word)
    return other or path.suffix.lower() in SUFFIXES or _is_video(path)


def _is_address(word: str | Path) -> bool:
    return isinstance(word, str) and word.lower().startswith(("http://", "https://"))


def _is_video(path: Path) -> bool:
    return path.suffix.lower() in VIDEO_SUFFIXES


async def _expanded(words: Sequence[str | Path], every: float) -> AsyncGenerator[NamedImage | str, None]:
    """The images that words name; addresses as they are."""
    for word in words:
        if isinstance(word, str) and _is_address(word):
            yield word
        elif word == STDIN:
            yield await asyncio.to_thread(_standard_input)
        else:
            for path in _paths(word):
                async with aclosing(_images_at(path, every)) as images:
                    async for image in images:
                        yield image


def _paths(word: str | Path) -> Iterator[Path]:
    """The files and folders that a word names."""
    if isinstance(word, Path) or os.path.lexists(word) or not glob.has_magic(word):
        yield Path(word)
        return
    yield from map(Path, sorted(glob.glob(word, recursive=True)) or [word])  # noqa: PTH207  Path.glob takes no absolute pattern


async def _images_at(path: Path, every: float) -> AsyncGenerator[NamedImage, None]:
    if os.path.isdir(path):  # noqa: PTH112  which has no error for a long name
        for image in _in_folder(path):
            yield image
    elif _is_video(path):
        from csg_serve.client.video_frames import frames

        taken = frames(path, every)
        try:
            while frame := await asyncio.to_thread(next, taken, None):
                yield frame
        finally:
            await asyncio.to_thread(taken.close)
    elif os.path.isfile(path) or not os.path.exists(path):  # noqa: PTH110, PTH113
        yield named(path)
    else:  # a pipe can be read once, and an overlay needs the image again
        yield await asyncio.to_thread(_content, path)


def _in_folder(folder: Path) -> Iterator[NamedImage]:
    """The images below a folder; the log says how many files were passed over."""
    others, images, suffixes = Counter[str](), 0, tuple(SUFFIXES)
    try:
        for path, names in walk(folder, others):
            for name in sorted(names):
                if name.lower().endswith(suffixes):
                    images += 1
                    yield named(path / name)
                else:
                    others[ending_of(name)] += 1
    except InputError as error:
        yield no_image(str(folder), error)
    if passed := +others:
        log(f"{folder}: {describe_passed_over(passed)}")
    if not images:
        yield no_image(str(folder), InputError(f"no image in {folder}", "check the path"))


def _content(path: Path) -> NamedImage:
    try:
        return NamedImage(str(path), path.stem, read_file(path))
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        return no_image(str(path), InputError(f"image {path} can't be read: {reason}", "check the path"))


def _standard_input() -> NamedImage:
    content = sys.stdin.buffer.read(MAX_FILE + 1) if sys.stdin else b""  # None if it is closed
    if not content:
        return no_image(STDIN, InputError("nothing is on standard input", "pipe one image to it, or name files"))
    with suppress(ValueError):  # an image that costs too much, which is said when it is decoded
        if read_header(content) is None:
            hint = "give names of files to xargs, not to -"
            return no_image(STDIN, InputError("standard input holds no image", hint))
    if len(content) > MAX_FILE:
        return no_image(STDIN, InputError(f"standard input has more than {MAX_FILE} bytes", "name files"))
    return NamedImage(STDIN, "stdin", content)
