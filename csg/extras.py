"""How a user adds an extra of csg: from where csg itself came, since PyPI's package of this name is another project."""

from __future__ import annotations

import json
import shlex
from importlib import metadata
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import csg

SOURCES = Path(csg.__file__).parent.parent
"""The folder of the packages: the checkout, if csg runs from one."""


def install_command(extra: str) -> str:
    """The command that adds an extra to this installation of csg.

    Example:
        >>> install_command("serve")
        "pip install -e '/home/me/csg[serve]'"
    """
    if (SOURCES / "pyproject.toml").is_file():
        return f"pip install -e {shlex.quote(f'{SOURCES}[{extra}]')}"
    return f"pip install {shlex.quote(requirement(extra, _origin(), csg.__version__))}"


def requirement(extra: str, origin: dict[str, Any] | None, version: str) -> str:
    """The requirement that names csg with an extra, as pip takes it.

    Args:
        extra: one of pyproject.toml.
        origin: what the installer recorded of the place that csg came from, the content of `direct_url.json`; None: it
            came from a package index.
        version: of csg.

    Example:
        >>> requirement("serve", {"url": "file:///tmp/csg-0.2.0-py3-none-any.whl", "archive_info": {}}, "0.2.0")
        '/tmp/csg-0.2.0-py3-none-any.whl[serve]'
    """
    if origin is None:
        return f"csg[{extra}]=={version}"
    address = urlsplit(str(origin.get("url", "")))
    if address.scheme == "file":
        return f"{unquote(address.path)}[{extra}]"
    plain = address._replace(netloc=address.netloc.rpartition("@")[2]).geturl()  # without a password
    repository = origin.get("vcs_info")
    if isinstance(repository, dict):
        plain = f"{repository.get('vcs', 'git')}+{plain}@{repository.get('commit_id', 'HEAD')}"
    return f"csg[{extra}] @ {plain}"


def _origin() -> dict[str, Any] | None:
    """What the installer recorded (PyPA's "Recording the Direct URL Origin of installed distributions")."""
    try:
        recorded = json.loads(metadata.distribution("csg").read_text("direct_url.json") or "null")
    except (metadata.PackageNotFoundError, ValueError):
        return None
    return recorded if isinstance(recorded, dict) else None
