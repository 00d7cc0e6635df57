"""fp16: half the size, for GPUs with fast half-precision arithmetic; input and logits keep their types.

Everything is fp16 except what is shown to need float32. The graph with every value rounded to fp16 is compared with
PyTorch on real images and on hard inputs. Where it leaves the tolerance or overflows, delta debugging finds the blocks
that have to stay in float32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypeVar

from onnx import ModelProto

from csg.errors import VerificationError
from csg_export.fp16_graph import in_fp16, rounded_to_fp16
from csg_export.layers import LAYERS

T = TypeVar("T")


@dataclass(frozen=True)
class Fp16Graphs:
    """A graph converted to fp16."""

    model: ModelProto
    """The graph to ship, with the same input and the same float32 outputs."""
    rounded: ModelProto
    """The same graph in float32 with every fp16 value rounded: what a GPU computes."""
    float32_blocks: tuple[str, ...]
    """Name of the first node of every block that stays in float32."""
    blocks: int
    """Number of blocks of the graph."""


def to_fp16(model: ModelProto, within_tolerance: Callable[[ModelProto], bool]) -> Fp16Graphs:
    """Convert a float32 graph to fp16.

    Args:
        within_tolerance: whether a graph is close enough to the network that it was exported from.

    Raises:
        VerificationError: the float32 graph itself is outside the tolerance.
    """
    blocks = blocks_of(model)

    def nodes(float32: frozenset[int]) -> set[str]:
        return {name for index in float32 for name in blocks[index]}

    found = minimal_set(range(len(blocks)), lambda float32: within_tolerance(rounded_to_fp16(model, nodes(float32))))
    if found is None:
        raise VerificationError(
            "the fp32 graph is outside the tolerance already", "nothing was written; raise --tolerance"
        )
    float32_nodes = nodes(found)
    return Fp16Graphs(
        model=in_fp16(model, float32_nodes),
        rounded=rounded_to_fp16(model, float32_nodes),
        float32_blocks=tuple(blocks[index][0] for index in sorted(found)),
        blocks=len(blocks),
    )


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
