"""A graph with most of its nodes in fp16: as it ships, or in float32 with every fp16 value rounded.

The second form shows what a GPU computes (products of fp16 values summed in float32, the result rounded to fp16) on a
machine without one. ONNX Runtime on a CPU runs a chain of fp16 nodes in float32 and drops the casts between them:
neither rounding nor overflow inside the chain would show.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from csg_export.external_weights import convert_constant
from csg_export.onnx_graph import check_graph, opset_of

FP32, FP16 = TensorProto.FLOAT, TensorProto.FLOAT16
MEAN_OPERATORS = ("ReduceMean", "GlobalAveragePool")
FLOAT32_INPUTS = {"Resize": (2,)}
"""Indices of the inputs that are float32 whatever the type of the first input, by operator."""


def in_fp16(model: ModelProto, float32_nodes: Collection[str]) -> ModelProto:
    """The fp16 graph. The nodes named in `float32_nodes`, and the graph's inputs and outputs, stay float32."""
    return _GraphBuilder(model, float32_nodes, simulate=False).finish()


def rounded_to_fp16(model: ModelProto, float32_nodes: Collection[str]) -> ModelProto:
    """The float32 graph that rounds every value that `in_fp16` holds in fp16; an overflow gives infinity or NaN."""
    return _GraphBuilder(model, float32_nodes, simulate=True).finish()


def exists_in_fp16(node: NodeProto, opset: int) -> bool:
    """Whether ONNX defines a node's operator for fp16 values; it does not define Range, for one, as in a DINOv3's
    positions, nor Celu."""
    if node.domain:
        return True
    schema = onnx.defs.get_schema(node.op_type, opset)
    sides = ((schema.inputs, node.input), (schema.outputs, node.output))
    used = {value.type_str for values, names in sides for value, name in zip(values, names, strict=False) if name}
    floats = [c.allowed_type_strs for c in schema.type_constraints if c.type_param_str in used]
    return not any("tensor(float)" in types and "tensor(float16)" not in types for types in floats)


class _GraphBuilder:
    """Rebuilds a graph node by node, with casts where float32 and fp16 meet."""

    def __init__(self, model: ModelProto, float32_nodes: Collection[str], simulate: bool):
        self.model = ModelProto()
        self.model.CopyFrom(onnx.shape_inference.infer_shapes(model))
        self.simulate = simulate
        graph = self.model.graph
        self.type = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)}
        self.constants = {constant.name: constant for constant in graph.initializer}
        self.type |= {name: constant.data_type for name, constant in self.constants.items()}
        self.nodes: list[NodeProto] = []
        self.used_constants: dict[str, TensorProto] = {}
        self.produced: set[str] = set()
        self.fp16_values: set[str] = set()
        opset = opset_of(model)
        for node in model.graph.node:
            self._add(node, FP32 if node.name in float32_nodes or not exists_in_fp16(node, opset) else FP16)

    def finish(self) -> ModelProto:
        graph = self.model.graph
        for output in graph.output:
            self._as_type(output.name, FP32)
        graph.ClearField("value_info")
        graph.ClearField("node")
        graph.ClearField("initializer")
        graph.node.extend(self.nodes)
        graph.initializer.extend(self.used_constants.values())
        check_graph(self.model)
        return self.model

    def _add(self, node: NodeProto, to: int) -> None:
        """Add a copy of the node that computes in float type `to`."""
        copy = NodeProto()
        copy.CopyFrom(node)
        always_float32 = FLOAT32_INPUTS.get(node.op_type, ())
        copy.input[:] = [
            self._as_type(name, FP32 if index in always_float32 else to) for index, name in enumerate(node.input)
        ]
        floats = [index for index, name in enumerate(node.output) if self.type.get(name) == FP32] if to == FP16 else []
        for index in floats:
            copy.output[index] = f"{node.output[index]}_{'exact' if self.simulate else 'fp16'}"
            self.fp16_values.add(node.output[index])
        if node.op_type == "Cast" and floats and not self.simulate:
            copy.attribute[0].CopyFrom(helper.make_attribute("to", FP16))
        self.nodes.append(copy)
        self.produced.update(copy.output)
        for index in floats if self.simulate else []:
            exact = copy.output[index]
            if node.op_type in MEAN_OPERATORS:
                exact = self._with_checked_sum(copy)
            self._round(exact, f"{node.output[index]}_fp16")

    def _as_type(self, name: str, to: int) -> str:
        """The name of the value `name` of the original graph, as float type `to` if it is a float."""
        if self.type.get(name) != FP32:
            if name in self.constants:
                self.used_constants[name] = self.constants[name]
            return name
        wanted = f"{name}_fp16" if to == FP16 else name
        if name in self.constants:
            self.used_constants[wanted] = self._constant(name, wanted, to)
        elif wanted not in self.produced and self.simulate and to == FP16:
            self._round(name, wanted)
        elif wanted not in self.produced:
            present = f"{name}_fp16" if name in self.fp16_values else name
            if present != wanted:
                self._node("Cast", [present], wanted, to=FP32 if self.simulate else to)
        return wanted

    def _constant(self, name: str, new_name: str, to: int) -> TensorProto:
        constant = self.constants[name]
        if to == FP32:
            return constant
        return convert_constant(self.model, constant, new_name, _rounded if self.simulate else _half)

    def _round(self, name: str, rounded: str) -> None:
        self._node("Cast", [name], f"{rounded}_half", to=FP16)
        self._node("Cast", [f"{rounded}_half"], rounded, to=FP32)

    def _with_checked_sum(self, mean: NodeProto) -> str:
        """The mean, or NaN where the sum that it is computed from is outside fp16's range."""
        total, rounded, result = (f"{mean.output[0]}_{part}" for part in ("sum", "sum_rounded", "checked"))
        axes = [*mean.input[1:]]
        if mean.op_type == "GlobalAveragePool":
            axes = ["spatial_axes"]
            self.used_constants["spatial_axes"] = numpy_helper.from_array(np.array([2, 3]), "spatial_axes")
        keep = next((a.i for a in mean.attribute if a.name == "keepdims"), 1)
        self._node("ReduceSum", [mean.input[0], *axes], total, keepdims=keep)
        self._round(total, rounded)
        self.used_constants["zero"] = numpy_helper.from_array(np.float32(0), "zero")
        self._node("Mul", [rounded, "zero"], f"{rounded}_zero")
        self._node("Add", [mean.output[0], f"{rounded}_zero"], result)
        return result

    def _node(self, operator: str, inputs: list[str], output: str, **attributes: int) -> None:
        self.nodes.append(helper.make_node(operator, inputs, [output], f"{operator.lower()}_{output}", **attributes))
        self.produced.add(output)


def _half(values: np.ndarray) -> np.ndarray:
    with np.errstate(over="ignore"):
        return values.astype(np.float16)


def _rounded(values: np.ndarray) -> np.ndarray:
    return _half(values).astype(np.float32)
