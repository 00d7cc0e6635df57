"""csg: from synthetic images to a served model that works on real photographs.

The package holds what all stages share: model card, bundle, preprocessing, datasets, metrics. The commands are its
functions: `import csg; run = csg.train(); bundle = csg.export(run); csg.load(bundle).predict("photo.jpg")`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from csg.bundle import Bundle, read_bundle
    from csg.card import ModelCard, parse_card
    from csg.errors import CsgError
    from csg_cli.functions import deploy, embed, evaluate, export, load, serve, train

__version__ = "0.2.0"
__all__ = [
    "Bundle",
    "CsgError",
    "ModelCard",
    "__version__",
    "deploy",
    "embed",
    "evaluate",
    "export",
    "load",
    "parse_card",
    "read_bundle",
    "serve",
    "train",
]

_MODULES = {
    "Bundle": "csg.bundle",
    "read_bundle": "csg.bundle",
    "ModelCard": "csg.card",
    "parse_card": "csg.card",
    "CsgError": "csg.errors",
    **dict.fromkeys(("train", "embed", "export", "load", "evaluate", "deploy", "serve"), "csg_cli.functions"),
}


def __getattr__(name: str) -> Any:
    """Import a public name on first use, so that `import csg` is fast."""
    if name not in _MODULES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_MODULES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
