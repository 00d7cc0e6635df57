"""YAML files that a user writes: read with errors in one line, and with a limit on what aliases expand to."""

from __future__ import annotations

from pathlib import Path

import yaml

from csg.errors import InputError, one_line

MAX_BYTES = 2**20
"""Maximum size of a file."""
MAX_NODES = 100_000
"""Maximum number of values in a file, each alias counted as what it stands for."""


def read_yaml(path: Path, what: str) -> object:
    """The content of a YAML file.

    Args:
        path: the file.
        what: what it is, for errors, such as `label set streets.yaml`.

    Raises:
        InputError: as `parse_yaml`, or the file can't be read.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else one_line(error)
        raise InputError(f"{what} can't be read: {reason}", "check the path and its permissions") from None
    return parse_yaml(content, what)


def parse_yaml(content: bytes, what: str) -> object:
    """The content of a YAML text in UTF-8 or UTF-16.

    Raises:
        InputError: it is no YAML, too large, or gives a key twice.
    """
    if len(content) > MAX_BYTES:
        raise InputError(f"{what} is larger than {MAX_BYTES // 2**20} MiB", "check that it is the right file")
    try:
        loader = yaml.SafeLoader(content)
        node = loader.get_single_node()
        if node is None:
            return None
        if _size(node, {}) > MAX_NODES:
            raise ValueError(f"its aliases stand for more than {MAX_NODES} values, or for themselves")
        return loader.construct_document(node)
    except RecursionError:
        reason = "it is nested too deeply"
    except Exception as error:  # besides YAMLError, what Python's constructors of dates and numbers raise
        reason = one_line(error)
    raise InputError(f"{what} is not valid YAML: {reason}", "correct the file")


def _size(node: yaml.Node, known: dict[int, int]) -> int:
    """The number of values in a tree, each alias counted as what it stands for; above MAX_NODES for a loop.

    Raises:
        ValueError: a key is given twice.
    """
    if id(node) not in known:
        known[id(node)] = MAX_NODES  # until its children are counted: one that leads back here is a loop
        children = list(node.value) if isinstance(node, yaml.CollectionNode) else []
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
            children = [child for pair in node.value for child in pair]
        known[id(node)] = 1 + sum(_size(child, known) for child in children)
    return known[id(node)]


def _check_keys(node: yaml.MappingNode) -> None:
    seen = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.value in seen:
            raise ValueError(f"{key.value} is given twice, line {key.start_mark.line + 1}")
        seen.add(key.value if isinstance(key, yaml.ScalarNode) else id(key))
