"""Caches, proxies, locale and terminal."""

from __future__ import annotations

import locale
import os
import shutil
import sys
import time
from pathlib import Path
from urllib.parse import urlsplit

from csg.files import cache_dir
from csg.sizes import size_text
from csg_serve.doctor.report import ReportPart

PROXIES = ("http_proxy", "https_proxy", "all_proxy", "no_proxy", "grpc_proxy", "no_grpc_proxy")
"""Variables, in either case, that programs reach the network by."""
COUNT_S = 2.0
"""Seconds that the files of a cache are counted."""


def caches() -> ReportPart:
    """What csg and its libraries keep between runs, where, and how much of it."""
    home = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    places = {
        "csg (CSG_CACHE)": cache_dir(),
        "pretrained weights (TORCH_HOME)": Path(os.environ.get("TORCH_HOME") or home / "torch"),
        "Hugging Face (HF_HOME)": Path(os.environ.get("HF_HOME") or home / "huggingface"),
    }
    return ReportPart("caches", {name: f"{place}, {_size(place)}" for name, place in places.items()})


def surroundings() -> ReportPart:
    """Proxies, without user and password; locale; terminal."""
    set_ = {name: value for name, value in os.environ.items() if name.lower() in PROXIES and value}
    facts = {f"${name}": _without_password(value) for name, value in sorted(set_.items())} or {"proxies": "none"}
    encoding = locale.getpreferredencoding(False)
    facts["locale"] = f"{os.environ.get('LC_ALL') or os.environ.get('LANG') or 'none'}, {encoding}"
    terminal = f"{shutil.get_terminal_size().columns} columns, {os.environ.get('TERM', 'no TERM')}"
    facts["terminal"] = terminal if sys.stdout.isatty() else "standard output is none"
    return ReportPart("surroundings", facts)


def _without_password(value: str) -> str:
    """An address without what stands before its host, which may be a user and a password.

    Example:
        >>> _without_password("http://me:secret@proxy:3128")
        'http://proxy:3128'
    """
    if "@" not in value:
        return value
    scheme = value.partition("://")[0] + "://" if "://" in value else ""
    try:
        host = urlsplit(value if scheme else f"//{value}").netloc.rpartition("@")[2]
    except ValueError:
        host = ""
    return scheme + (host or value.rpartition("@")[2])


def _size(folder: Path) -> str:
    """Size of the files below a folder, counted for a limited time."""
    if not folder.is_dir():
        return "not there"
    total, end = 0, time.monotonic() + COUNT_S
    for place, _, names in os.walk(folder):
        for name in names:
            try:
                total += os.lstat(os.path.join(place, name)).st_size  # noqa: PTH118 - tens of thousands
            except OSError:
                continue
        if time.monotonic() > end:
            return f"more than {size_text(total)}"
    return size_text(total)
