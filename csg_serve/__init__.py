"""From a bundle to a running Triton server, and measurements through it.

The names of the client can be imported from here; they are loaded on first use.
"""

from __future__ import annotations

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from csg_serve.client.answers import ClassAnswer, MaskAnswer
    from csg_serve.client.async_client import AsyncClient
    from csg_serve.client.bundle_model import BundleModel, open_bundle
    from csg_serve.client.client import Client
    from csg_serve.client.connection import ServedModel, open_model
    from csg_serve.client.stream import stream

os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read at the import of gRPC, whose errors are raised as exceptions

__all__ = [
    "AsyncClient",
    "BundleModel",
    "ClassAnswer",
    "Client",
    "MaskAnswer",
    "ServedModel",
    "open_bundle",
    "open_model",
    "stream",
]

_MODULES = {
    "AsyncClient": "csg_serve.client.async_client",
    "ClassAnswer": "csg_serve.client.answers",
    "MaskAnswer": "csg_serve.client.answers",
    "BundleModel": "csg_serve.client.bundle_model",
    "open_bundle": "csg_serve.client.bundle_model",
    "Client": "csg_serve.client.client",
    "stream": "csg_serve.client.stream",
    "ServedModel": "csg_serve.client.connection",
    "open_model": "csg_serve.client.connection",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(import_module(_MODULES[name]), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
