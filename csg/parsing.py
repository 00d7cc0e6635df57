"""JSON and YAML from outside as plain values: whatever a text holds, the only error is one line."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import yaml
from pydantic_core import from_json

from csg.errors import InputError, one_line

MAX_BYTES = 2**20
"""Maximum size of a YAML file."""
MAX_NODES = 100_000
"""Values in a YAML text, each alias counted with all that it stands for."""


def parse_json(text: str | bytes) -> Any:
    """The value of a JSON text in UTF-8.

    Raises:
        ValueError: it is no JSON, is nested more than 200 deep, or holds a lone surrogate or a number that is infinite
            or has more than 64 bits.
    """
    value = from_json(text, allow_inf_nan=False)
    _check_numbers(value)
    return value


def read_yaml(path: Path, what: str) -> Any:
    """The value of a YAML file that a user writes.

    Args:
        path: the file.
        what: what it is, for errors, such as `label set streets.yaml`.

    Raises:
        InputError: the file can't be read, or as `parse_yaml`.
    """
    try:
        with path.open("rb") as file:
            content = file.read(MAX_BYTES + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else one_line(error)
        raise InputError(f"{what} can't be read: {reason}", "check the path and its permissions") from None
    if len(content) > MAX_BYTES:
        raise InputError(f"{what} is larger than {MAX_BYTES // 2**20} MiB", "check that it is the right file")
    try:
        return parse_yaml(content)
    except ValueError as error:
        raise InputError(f"{what} is not valid YAML: {error}", "correct the file") from None


def parse_yaml(text: str | bytes) -> Any:
    """The value of a YAML text; None for an empty one.

    Raises:
        ValueError: it is no YAML, gives a key twice, is nested too deeply, expands to more than MAX_NODES values, or
            holds a lone surrogate or a number that is infinite or has more than 64 bits.
    """
    try:
        loader = yaml.SafeLoader(text)
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {})
        value = loader.construct_document(node)
        _check_numbers(value)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None
    except (yaml.YAMLError, ValueError, LookupError, TypeError, AttributeError, ArithmeticError) as error:
        raise ValueError(one_line(error)) from None
    return value


def _count(node: yaml.Node, known: dict[int, int]) -> int:
    """The number of values that a node stands for; `known` holds those of nodes seen before, 0 while one is counted."""
    if id(node) not in known:
        known[id(node)] = 0
        if isinstance(node, yaml.MappingNode):
            _check_keys(node)
            parts = [part for pair in node.value for part in pair]
        else:
            parts = node.value if isinstance(node, yaml.SequenceNode) else []
            if not parts:
                str(node.value).encode()  # raises for a lone surrogate
        known[id(node)] = 1 + sum(_count(part, known) for part in parts)
    if not 0 < known[id(node)] <= MAX_NODES:
        raise ValueError("its aliases stand for themselves or for too many values")
    return known[id(node)]


def _check_keys(node: yaml.MappingNode) -> None:
    names = set()
    for key, _ in node.value:
        if isinstance(key, yaml.ScalarNode) and key.tag != "tag:yaml.org,2002:merge":
            if key.value in names:
                raise ValueError(f"{key.value} is given twice, in line {key.start_mark.line + 1}")
            names.add(key.value)


def _check_numbers(value: Any) -> None:
    if isinstance(value, dict):
        for key, part in value.items():
            _check_numbers(key)
            _check_numbers(part)
    elif isinstance(value, list | tuple):
        for part in value:
            _check_numbers(part)
    elif isinstance(value, float) and not math.isfinite(value):
        raise ValueError("a number is not finite")
    elif isinstance(value, int) and not -(2**63) <= value < 2**64:
        raise ValueError("a number is too large")
