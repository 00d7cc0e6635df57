"""The search for the blocks of a graph that have to stay float32, for fp16 and for int8."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TypeVar

from onnx import ModelProto

from csg_export.layers import LAYERS

T = TypeVar("T")


def blocks_of(model: ModelProto) -> list[list[str]]:
    """Node names in order, split into blocks: a convolution or matrix product and what follows it."""
    blocks: list[list[str]] = [[]]
    for node in model.graph.node:
        if node.op_type in LAYERS and blocks[-1]:
            blocks.append([])
        blocks[-1].append(node.name)
    return blocks


def minimal_set(items: Sequence[T], passes: Callable[[frozenset[T]], bool]) -> frozenset[T] | None:
    """A set of items that `passes` and from which no item can be removed; None if not even all items pass.

    Delta debugging by bisection (Zeller and Hildebrandt, "Simplifying and isolating failure-inducing input", TSE 2002).
    For k items in the result of n, `passes` is called about k log n times.

    Args:
        items: those that are likely to be in the result first: the last ones are tried to be left out first.
        passes: must not turn false when items are added.
    """
    passes = functools.cache(passes)

    def minimal(suspects: Sequence[T], included: frozenset[T]) -> frozenset[T]:
        if passes(included):
            return frozenset()
        if len(suspects) == 1:
            return frozenset(suspects)
        left, right = suspects[: len(suspects) // 2], suspects[len(suspects) // 2 :]
        from_right = minimal(right, included | frozenset(left))
        return from_right | minimal(left, included | from_right)

    if passes(frozenset()):
        return frozenset()
    return minimal(items, frozenset()) if passes(frozenset(items)) else None
