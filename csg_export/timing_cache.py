"""TensorRT's timings of layers, kept from build to build in one file by version and GPU.

The file is the SHA-256 of the timings, 32 bytes, and the timings as the library serialises them. Builds that run at the
same time add to the file one after the other.
"""

from __future__ import annotations

import hashlib
from contextlib import suppress
from pathlib import Path
from typing import Any

from csg.console import log
from csg.files import atomic_write
from csg.locks import lock

DIGEST_BYTES = 32


def load_timings(config: Any, file: Path) -> None:
    """Start a builder from the timings in a file, or from none. A damaged file is ignored.

    Args:
        config: TensorRT's IBuilderConfig.
        file: the file, which may not exist.
    """
    try:
        timings = _read(config, file)
    except (OSError, ValueError) as error:
        log(f"TensorRT's timings {file} are not used: {error}")
        timings = None
    config.set_timing_cache(config.create_timing_cache(b"") if timings is None else timings, False)


def save_timings(config: Any, file: Path) -> None:
    """Add a builder's timings to a file; what other builds have added meanwhile is kept.

    Args:
        config: TensorRT's IBuilderConfig, after the build.
        file: the file, which may not exist.
    """
    try:
        with lock(file.with_name(f".{file.name}.lock"), wait=""):
            timings = config.get_timing_cache()
            with suppress(ValueError):  # damaged: replaced
                if others := _read(config, file):
                    timings.combine(others, False)
            content = bytes(timings.serialize())
            atomic_write(file, hashlib.sha256(content).digest() + content)
    except OSError as error:
        log(f"TensorRT's timings are not kept: {file} can't be written: {error.strerror}")


def _read(config: Any, file: Path) -> Any:
    """The timings in a file, as the library's object; None if there is no file.

    Raises:
        OSError: the file can't be read.
        ValueError: it is damaged, or the library refuses it.
    """
    if not file.exists():
        return None
    stored = file.read_bytes()
    digest, content = stored[:DIGEST_BYTES], stored[DIGEST_BYTES:]
    timings = config.create_timing_cache(content) if hashlib.sha256(content).digest() == digest else None
    if timings is None:
        raise ValueError("the file is damaged")
    return timings
