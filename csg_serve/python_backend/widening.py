"""fp16 graphs in fp32 arithmetic: on a CPU, ONNX Runtime would cast between fp16 and fp32 again and again.

`csg deploy` copies this file beside model.py, where csg can't be imported: it stands alone.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from onnx import NodeProto, TensorProto


@dataclass(frozen=True)
class WideGraph:
    """A graph without fp16."""

    model: bytes
    """The ONNX file."""

    weights: dict[str, np.ndarray] = field(default_factory=dict)
    """The weights that are not in it, since they were in a file of their own, by name."""


def widen(path: Path) -> WideGraph:
    """Read a graph, and make its fp16 weights and values fp32; its input and outputs stay as they are.

    A cast between fp16 and fp32 becomes an Identity, which ONNX Runtime removes.

    Raises:
        ImportError: the package onnx is not installed.
    """
    import onnx

    model = onnx.load(path, load_external_data=False)
    described = onnx.shape_inference.infer_shapes(model).graph
    values = (*described.input, *described.value_info, *described.output)
    types = {value.name: value.type.tensor_type.elem_type for value in values}
    types |= {tensor.name: tensor.data_type for tensor in model.graph.initializer}
    model.graph.ClearField("value_info")
    tensors, weights = [*model.graph.initializer], {}
    for node in model.graph.node:
        tensors += [attribute.t for attribute in node.attribute if attribute.HasField("t")]
        if node.op_type == "Cast":
            _widen_cast(node, types.get(node.input[0], onnx.TensorProto.UNDEFINED))
    for tensor in tensors:
        if tensor.data_location == onnx.TensorProto.EXTERNAL:
            weights[tensor.name] = _wide_values(tensor, path.parent)
            tensor.data_type = onnx.helper.np_dtype_to_tensor_dtype(weights[tensor.name].dtype)
        elif tensor.data_type == onnx.TensorProto.FLOAT16:
            tensor.CopyFrom(onnx.numpy_helper.from_array(_wide_values(tensor, path.parent), tensor.name))
    return WideGraph(model.SerializeToString(), weights)


def _widen_cast(node: NodeProto, source: int) -> None:
    """Make a cast to fp16 one to fp32, or none if its source, of this type, is fp16 or fp32 itself."""
    from onnx import TensorProto

    floats = (TensorProto.FLOAT, TensorProto.FLOAT16)
    to = next(attribute for attribute in node.attribute if attribute.name == "to")
    if to.i in floats and source in floats:
        node.op_type = "Identity"
        node.ClearField("attribute")
    elif to.i == TensorProto.FLOAT16:
        to.i = TensorProto.FLOAT


def _wide_values(tensor: TensorProto, folder: Path) -> np.ndarray:
    from onnx import numpy_helper

    values: np.ndarray = numpy_helper.to_array(tensor, str(folder))
    return values.astype(np.float32) if values.dtype == np.float16 else values
