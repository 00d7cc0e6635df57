"""The name that a user may have meant."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping

NONE: Mapping[str, str] = {}


def closest(name: str, known: Iterable[str], synonyms: Mapping[str, str] = NONE) -> str | None:
    """The known name that is nearest to another one, whatever its case; None if none is near.

    Args:
        name: what the user wrote.
        known: the names there are.
        synonyms: known names by the words that other programs have for them.

    Example:
        >>> closest("ResNet-50", ["resnet18", "resnet50"])
        'resnet50'
    """
    names, wanted = {_plain(one): one for one in known}, _plain(name)
    meant = {_plain(word): one for word, one in synonyms.items()}.get(wanted)
    if meant and _plain(meant) in names:
        return names[_plain(meant)]
    found = difflib.get_close_matches(wanted, names, n=1)
    return names[found[0]] if found else None


def use_one_of(name: str, known: Iterable[str], more: str = "") -> str:
    """The hint for a name that does not exist: the nearest one, and all of them.

    Example:
        >>> use_one_of("cgs", ["l2", "csg"])
        'did you mean csg? use one of l2, csg'
    """
    known = list(known)
    near = closest(name, known)
    return (f"did you mean {near}? " if near else "") + f"use one of {', '.join(known)}{more}"


def _plain(name: str) -> str:
    return name.lower().replace("-", "_").strip("_ ")
