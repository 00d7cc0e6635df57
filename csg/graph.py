"""What an ONNX file says about itself: its inputs and outputs, and that they are those of a model card.

It is read with protobuf alone: deploying needs no package onnx. Weights are passed over.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from csg.card import ModelCard
from csg.errors import InputError, one_line

ELEMENT_TYPES = {1: "FP32", 2: "UINT8", 10: "FP16"}
"""Data types in Triton's terms, by ONNX's number."""

MESSAGES = {
    "Model": {"ir_version": (1, "int"), "graph": (7, "Graph"), "opset_import": (8, "Opset*")},
    "Opset": {"domain": (1, "text"), "version": (2, "int")},
    "Graph": {"input": (11, "Value*"), "output": (12, "Value*")},
    "Value": {"name": (1, "text"), "type": (2, "Type")},
    "Type": {"tensor_type": (1, "Tensor")},
    "Tensor": {"elem_type": (1, "int"), "shape": (2, "Shape")},
    "Shape": {"dim": (1, "Dim*")},
    "Dim": {"dim_value": (1, "int")},
}
"""The fields of onnx.proto that are read: number, and type; * for a list."""


@dataclass(frozen=True)
class GraphTensor:
    """An input or output of a graph."""

    dtype: str
    """Data type, in Triton's terms."""
    shape: tuple[int, ...]
    """Length of each axis; -1 where it is not fixed."""

    def __str__(self) -> str:
        return f"{self.dtype} {self.shape}"

    def fits(self, described: GraphTensor) -> bool:
        """Whether it is what a card describes: a side may be free where the card fixes it, not the reverse.

        The number of classes or features, axis 1 of floating-point outputs, is never free.
        """
        axes = zip(self.shape, described.shape, strict=False)
        same_axes = len(self.shape) == len(described.shape) and all(axis in (-1, wanted) for axis, wanted in axes)
        same_classes = self.dtype == "UINT8" or self.shape[1:2] == described.shape[1:2]
        return self.dtype == described.dtype and same_axes and same_classes


@dataclass(frozen=True)
class GraphFacts:
    """What an ONNX file says about itself."""

    ir_version: int
    """Version of the file format."""
    opset: int
    """Version of ONNX's own operators; 0 if it uses none."""
    inputs: dict[str, GraphTensor]
    """The inputs, by name."""
    outputs: dict[str, GraphTensor]
    """The outputs, by name."""


def check_graph_fits(model: Path, card: ModelCard, where: Path) -> None:
    """Check that an ONNX file has the input, the outputs and the opset that its card describes.

    Args:
        model: the file.
        card: the card.
        where: what to call the file in the error.

    Raises:
        InputError: it has not, or the file is no ONNX.
    """
    try:
        facts = graph_facts(model)
        described = GraphTensor(card.input.dtype, (-1, card.input.height or -1, card.input.width or -1, 3))
        _compare("input", {card.input.name: described}, facts.inputs)
        _compare("output", {o.name: GraphTensor(o.dtype, tuple(o.shape)) for o in card.outputs}, facts.outputs)
        if others := facts.inputs.keys() - {card.input.name}:
            raise ValueError(f"it needs another input, {min(others)}")
        if facts.opset != card.opset:
            raise ValueError(f"it has opset {facts.opset}, the card says {card.opset}")
    except ValueError as error:
        raise InputError(f"{where} is no ONNX graph of its card: {one_line(error)}", "export the run again") from None


def graph_facts(model: Path) -> GraphFacts:
    """Read what an ONNX file says about itself.

    Raises:
        ValueError: the file is no ONNX.
    """
    from google.protobuf.message import DecodeError

    try:
        found = _message_class().FromString(model.read_bytes())
    except DecodeError:
        raise ValueError("it is no protobuf message") from None
    opsets = {entry.domain: entry.version for entry in found.opset_import}
    inputs, outputs = (
        {value.name: _tensor(value.type.tensor_type) for value in values}
        for values in (found.graph.input, found.graph.output)
    )
    return GraphFacts(found.ir_version, opsets.get("", 0), inputs, outputs)


def _tensor(tensor: Any) -> GraphTensor:
    dtype = ELEMENT_TYPES.get(tensor.elem_type, f"ONNX type {tensor.elem_type}")
    return GraphTensor(dtype, tuple(dim.dim_value or -1 for dim in tensor.shape.dim))


def _compare(kind: str, described: dict[str, GraphTensor], found: dict[str, GraphTensor]) -> None:
    for name, wanted in described.items():
        if name not in found:
            raise ValueError(f"it has no {kind} {name}")
        if not found[name].fits(wanted):
            raise ValueError(f"its {kind} {name} is {found[name]}, the card says {wanted}")


@cache
def _message_class() -> Any:
    """The class of a ModelProto with the fields of `MESSAGES`."""
    from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

    field = descriptor_pb2.FieldDescriptorProto
    types = {"int": field.TYPE_INT64, "text": field.TYPE_STRING}
    file = descriptor_pb2.FileDescriptorProto(name="graph.proto", package="csg", syntax="proto2")
    for message, fields in MESSAGES.items():
        described = file.message_type.add(name=message)
        for name, (number, kind) in fields.items():
            label = field.LABEL_REPEATED if kind.endswith("*") else field.LABEL_OPTIONAL
            added = described.field.add(name=name, number=number, label=label)
            if kind in types:
                added.type = types[kind]
            else:
                added.type, added.type_name = field.TYPE_MESSAGE, f".csg.{kind.rstrip('*')}"
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return message_factory.GetMessageClass(pool.FindMessageTypeByName("csg.Model"))
