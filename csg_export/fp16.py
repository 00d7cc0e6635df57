"""fp16: half the size, for GPUs with fast half-precision arithmetic; input and logits stay as they are.

Everything is fp16 but what is shown to need float32: the graph with every value rounded is measured on real and on hard
images, and where it misses the tolerance, or overflows, the blocks to blame are found by bisection and kept in float32.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import TypeVar

from onnx import ModelProto

from csg.errors import VerificationError
from csg_export.fp16_graph import in_fp16, rounded_to_fp16

BLOCK_STARTS = ("Conv", "Gemm", "MatMul")
T = TypeVar("T")


def to_fp16(model: ModelProto, holds: Callable[[ModelProto], bool]) -> tuple[ModelProto, ModelProto, str]:
    """The fp16 graph, with the same input and the same float32 outputs; its rounded twin; and what was kept in fp32.

    Args:
        holds: whether a graph stays within the tolerance of the network it came from.

    Raises:
        VerificationError: `holds` is false of the float32 graph already.
    """
    blocks = blocks_of(model)

    def nodes(kept: frozenset[int]) -> set[str]:
        return {name for place in kept for name in blocks[place]}

    needed = smallest(range(len(blocks)), lambda kept: holds(rounded_to_fp16(model, nodes(kept))))
    if needed is None:
        raise VerificationError("the fp32 graph is off the tolerance already", "nothing was written; raise --tolerance")
    kept = nodes(needed)
    names = ", ".join(blocks[place][0] for place in sorted(needed))
    note = (
        f"weights and arithmetic fp16; {len(needed)} of {len(blocks)} blocks fp32{f' ({names})' if needed else ''}. "
        "ONNX Runtime on a CPU computes it in fp32 behind casts: correct, but slower than the fp32 graph"
    )
    return in_fp16(model, kept), rounded_to_fp16(model, kept), note


def blocks_of(model: ModelProto) -> list[list[str]]:
    """Names of the nodes in order, cut where a convolution or a matrix product starts."""
    blocks: list[list[str]] = [[]]
    for node in model.graph.node:
        if node.op_type in BLOCK_STARTS and blocks[-1]:
            blocks.append([])
        blocks[-1].append(node.name)
    return blocks


def smallest(items: Sequence[T], holds: Callable[[frozenset[T]], bool]) -> frozenset[T] | None:
    """A set of items that `holds`, of which none can be left out; None if not even all of them do.

    `holds` must not turn false when items are added. For k items in the result of n it is asked about k log n times.
    """
    holds = functools.cache(holds)

    def needed(suspects: Sequence[T], kept: frozenset[T]) -> frozenset[T]:
        if holds(kept):
            return frozenset()
        if len(suspects) == 1:
            return frozenset(suspects)
        left, right = suspects[: len(suspects) // 2], suspects[len(suspects) // 2 :]
        of_right = needed(right, kept | frozenset(left))
        return of_right | needed(left, kept | of_right)

    if holds(frozenset()):
        return frozenset()
    return needed(items, frozenset()) if holds(frozenset(items)) else None
