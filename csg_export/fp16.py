"""fp16: half the size, for GPUs with fast half-precision arithmetic; input and logits keep their types.

Everything is fp16 except what is shown to need float32. The graph with every value rounded to fp16 is compared with
PyTorch on real images and on hard inputs. Where it leaves the tolerance or overflows, delta debugging finds the blocks
that have to stay in float32.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from onnx import ModelProto

from csg.errors import VerificationError
from csg_export.block_search import blocks_of, minimal_set
from csg_export.fp16_graph import in_fp16, rounded_to_fp16


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
