"""Frames of video files, with PyAV."""

from __future__ import annotations

import importlib.util
from collections.abc import Generator
from pathlib import Path

from PIL import Image

from csg.errors import InputError, UsageError, one_line
from csg.extras import install_command
from csg.images import MAX_PIXELS
from csg_serve.client.named_image import NamedImage, no_image

DEMUXERS = "mov,mp4,m4a,3gp,3g2,mj2,matroska,webm,avi,mpeg,mpegvideo,mpegts,asf,flv,ogg"
"""FFmpeg's names of the containers that are read; others, such as playlists, may open further files and addresses."""


def check_installed() -> None:
    """Raise UsageError if PyAV is not installed."""
    if importlib.util.find_spec("av") is None:
        raise UsageError("videos need PyAV", install_command("video"))


def frames(path: Path, every: float) -> Generator[NamedImage, None, None]:
    """Frames of a video, upright.

    Args:
        path: the file.
        every: seconds between two frames that are taken, the first one always; 0: every frame.

    Yields:
        The frames, named `clip.mp4#t=2.000`, as in Media Fragments URIs; at the end the error, if the video is broken.
    """
    at = 0.0
    try:
        for at, image in _taken(path, every):
            yield NamedImage(f"{path}#t={at:.3f}", f"{path.stem}-{at:.3f}s", image)
    except InputError as error:
        yield no_image(str(path), error)
    except FileNotFoundError:
        yield no_image(str(path), InputError(f"video {path} does not exist", "check the path"))
    except Exception as error:  # decoders fail on malformed files in many ways
        where = f" after {at:.1f} s" if at else ""
        reason = one_line(getattr(error, "strerror", None) or error)
        yield no_image(str(path), InputError(f"video {path} can't be read{where}: {reason}", "repair or remove it"))


def _taken(path: Path, every: float) -> Generator[tuple[float, Image.Image], None, None]:
    """Time in seconds since the first frame, and image, of each frame that is taken."""
    import av

    limits = {"format_whitelist": DEMUXERS, "protocol_whitelist": "file"}
    with path.open("rb") as file, av.open(file, "r", container_options=limits) as container:
        if not container.streams.video:
            raise InputError(f"video {path} has no pictures", "name another file")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        first = due = None
        for frame in container.decode(stream):
            if frame.width * frame.height > MAX_PIXELS:
                raise InputError(f"a frame of {path} has more than {MAX_PIXELS:,} pixels", "make the video smaller")
            time = frame.time or 0.0
            first = time if first is None else first
            due = time if due is None else due
            if time + 1e-6 >= due:
                due = due + every * (1 + max(0.0, time - due) // every) if every else time
                yield time - first, _upright(frame.to_image(), frame.rotation)


def _upright(image: Image.Image, degrees: int) -> Image.Image:
    """The image, turned as the video says (counter-clockwise)."""
    return image.rotate(degrees, expand=True) if degrees else image
