"""Checkpoints of the method's published code (NVlabs/CSG): which of their tensors are what.

    encoder_q.fc_new.               classification: the task head, Linear, ReLU, Linear
    encoder_q.fc_new.conv2d_list.0. segmentation: the task head, an ASPP
    encoder_q.fc_csg.               the projection heads
    encoder_q.fc.                   a layer of 128 outputs in the place of the ImageNet classifier; nobody uses it
    encoder_q.                      all else: the student's encoder, named as torchvision's ResNet
    encoder_k.                      the teacher, with the averaged projection heads
    queue3, queue_ptr3, ...         the keys of earlier batches, and the place of the next ones

Source: what `train.py` and `train_seg.py` there save, `{"epoch", "state_dict", "best_prec1" or "best_mIoU"}`. Only the
first, the second and the encoder are read.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

from torch import Tensor

STUDENT = "encoder_q."
HEAD = "fc_new."
SEGMENTATION_HEAD = "conv2d_list.0."
UNUSED = "fc"
"""Start of the names of the student's other layers, without the head's."""
DEPTHS: dict[tuple[tuple[int, ...], bool], int] = {
    ((2, 2, 2, 2), False): 18,
    ((3, 4, 6, 3), False): 34,
    ((3, 4, 6, 3), True): 50,
    ((3, 4, 23, 3), True): 101,
}
"""Depth of a ResNet by the blocks of its four layers, and whether they have a third convolution."""


@dataclass(frozen=True)
class CsgCheckpoint:
    """The student in a checkpoint of the published code."""

    task: Literal["cls", "seg"]
    """Classification or segmentation."""
    backbone: str
    """Name of its encoder's backbone."""
    classes: int
    """Number of classes."""
    encoder: dict[str, Tensor]
    """Its encoder, named as torchvision's ResNet without the classifier."""
    head: dict[str, Tensor]
    """Its head, named as csg's."""


def is_csg_checkpoint(state: Mapping[str, Tensor]) -> bool:
    """Whether a state dict is one of the published code."""
    return any(name.startswith(STUDENT) for name in state)


def encoder_of(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The student's encoder, named as torchvision's ResNet without the classifier."""
    return {name: tensor for name, tensor in _below(state, STUDENT).items() if not name.startswith(UNUSED)}


def parse_csg_checkpoint(state: Mapping[str, Tensor]) -> CsgCheckpoint:
    """The student in a state dict of the published code.

    Raises:
        ValueError: in one line, why there is none.
    """
    if not is_csg_checkpoint(state):
        raise ValueError(f"no name in it starts with {STUDENT}")
    head = _below(state, STUDENT + HEAD)
    if not head:
        raise ValueError(f"it has no task head, {STUDENT}{HEAD}*")
    segmentation = _below(head, SEGMENTATION_HEAD)
    last = "4.weight" if segmentation else "2.weight"
    head = segmentation or head
    if last not in head or not head[last].ndim:
        raise ValueError(f"its task head has no layer {last.removesuffix('.weight')}")
    encoder = encoder_of(state)
    return CsgCheckpoint("seg" if segmentation else "cls", _backbone(encoder), len(head[last]), encoder, head)


def _below(state: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): tensor for name, tensor in state.items() if name.startswith(prefix)}


def _backbone(encoder: Mapping[str, Tensor]) -> str:
    """The backbone whose layers an encoder has.

    Raises:
        ValueError: csg has no such backbone.
    """
    layers = [{name.split(".")[1] for name in encoder if name.startswith(f"layer{n}.")} for n in range(1, 5)]
    blocks, three = tuple(map(len, layers)), "layer1.0.conv3.weight" in encoder
    if (blocks, three) not in DEPTHS:
        found = ", ".join(map(str, blocks))
        raise ValueError(f"its encoder has {found} blocks, those of no ResNet of depth 18, 34, 50 or 101")
    return f"resnet{DEPTHS[blocks, three]}"
