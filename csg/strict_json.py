"""JSON as csg writes and prints it: without NaN and infinity, which JSON does not have."""

from __future__ import annotations

import json
from collections.abc import Mapping


def json_text(tree: Mapping[str, object], indent: int | None = 2) -> str:
    """The text of a JSON object, without a line break at its end.

    Args:
        tree: the object.
        indent: spaces for each level; None: all on one line.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    return json.dumps(tree, indent=indent, allow_nan=False)
