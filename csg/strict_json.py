"""JSON as csg writes and prints it: what every reader takes, without NaN, infinity and broken Unicode."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping

from csg.errors import printable

LONE_SURROGATE = re.compile("[\ud800-\udfff]")


def json_text(tree: Mapping[str, object], indent: int | None = 2) -> str:
    """The text of a JSON object in ASCII, without a line break at its end.

    A byte of a file name that is not UTF-8 is written as `\\xe9`: JSON has no other way that every reader takes.

    Args:
        tree: the object.
        indent: spaces for each level; None: all on one line.

    Raises:
        ValueError: a number is NaN or infinite.
    """
    text = json.dumps(tree, indent=indent, allow_nan=False)
    if "\\ud" not in text:
        return text
    text = json.dumps(tree, ensure_ascii=False, allow_nan=False)
    text = LONE_SURROGATE.sub(lambda found: printable(found[0]).replace("\\", "\\\\"), text)
    return json.dumps(json.loads(text), indent=indent)
