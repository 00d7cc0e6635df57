"""A graph with some of its nodes in fp16: as it ships, or in float32 with every fp16 value rounded.

The second is the honest stand-in for a GPU's arithmetic (products of fp16 values summed in float32, the result rounded)
on a machine without one: ONNX Runtime on a CPU runs a chain of fp16 nodes in float32 and drops the casts between them,
so that neither rounding nor overflow inside the chain would show.
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from csg_export.onnx_graph import check

FP32, FP16 = TensorProto.FLOAT, TensorProto.FLOAT16
MEANS = ("ReduceMean", "GlobalAveragePool")
OWN_TYPE = {"Resize": (2,)}  # inputs that are float32 whatever the first one is


def in_fp16(model: ModelProto, kept: Collection[str]) -> ModelProto:
    """The fp16 graph; nodes named in `kept` stay float32, and so do inputs and outputs."""
    return _Retyped(model, kept, simulated=False).finished()


def rounded_to_fp16(model: ModelProto, kept: Collection[str]) -> ModelProto:
    """The float32 graph that computes what `in_fp16` computes with rounded values: an overflow is infinite, or NaN."""
    return _Retyped(model, kept, simulated=True).finished()


class _Retyped:
    """The graph, built node by node, with casts where float32 and fp16 meet."""

    def __init__(self, model: ModelProto, kept: Collection[str], simulated: bool):
        self.model = ModelProto()
        self.model.CopyFrom(onnx.shape_inference.infer_shapes(model))
        self.simulated = simulated
        graph = self.model.graph
        self.type = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)}
        self.constants = {constant.name: constant for constant in graph.initializer}
        self.type |= {name: constant.data_type for name, constant in self.constants.items()}
        self.nodes: list[NodeProto] = []
        self.used: dict[str, TensorProto] = {}
        self.made: set[str] = set()
        self.half: set[str] = set()
        for node in model.graph.node:
            self._add(node, FP32 if node.name in kept else FP16)

    def finished(self) -> ModelProto:
        graph = self.model.graph
        for output in graph.output:
            self._as(output.name, FP32)
        graph.ClearField("value_info")
        graph.ClearField("node")
        graph.ClearField("initializer")
        graph.node.extend(self.nodes)
        graph.initializer.extend(self.used.values())
        check(self.model)
        return self.model

    def _add(self, node: NodeProto, to: int) -> None:
        copy = NodeProto()
        copy.CopyFrom(node)
        own = OWN_TYPE.get(node.op_type, ())
        copy.input[:] = [self._as(name, FP32 if place in own else to) for place, name in enumerate(node.input)]
        floats = [place for place, name in enumerate(node.output) if self.type.get(name) == FP32] if to == FP16 else []
        for place in floats:
            copy.output[place] = f"{node.output[place]}_{'exact' if self.simulated else 'fp16'}"
            self.half.add(node.output[place])
        if node.op_type == "Cast" and floats and not self.simulated:
            copy.attribute[0].CopyFrom(helper.make_attribute("to", FP16))
        self.nodes.append(copy)
        self.made.update(copy.output)
        for place in floats if self.simulated else []:
            exact = copy.output[place]
            if node.op_type in MEANS:
                exact = self._with_its_sum(copy)
            self._round(exact, f"{node.output[place]}_fp16")

    def _as(self, name: str, to: int) -> str:
        """The name of the value called `name` in the original graph, as float type `to` if it is a float."""
        if self.type.get(name) != FP32:
            if name in self.constants:
                self.used[name] = self.constants[name]
            return name
        wanted = f"{name}_fp16" if to == FP16 else name
        if name in self.constants:
            self.used[wanted] = self._constant(name, wanted, to)
        elif wanted not in self.made and self.simulated and to == FP16:
            self._round(name, wanted)
        elif wanted not in self.made:
            there = f"{name}_fp16" if name in self.half else name
            if there != wanted:
                kind = FP32 if self.simulated else to
                self._node("Cast", [there], wanted, to=kind)
        return wanted

    def _constant(self, name: str, wanted: str, to: int) -> TensorProto:
        values = numpy_helper.to_array(self.constants[name])
        if to == FP16:
            with np.errstate(over="ignore"):
                values = values.astype(np.float16)
        return numpy_helper.from_array(values.astype(np.float32) if self.simulated else values, wanted)

    def _round(self, name: str, rounded: str) -> None:
        self._node("Cast", [name], f"{rounded}_half", to=FP16)
        self._node("Cast", [f"{rounded}_half"], rounded, to=FP32)

    def _with_its_sum(self, mean: NodeProto) -> str:
        """The mean, or NaN where the sum that it takes on the way is beyond fp16's range."""
        total, rounded, result = (f"{mean.output[0]}_{part}" for part in ("sum", "sum_rounded", "checked"))
        axes = [*mean.input[1:]]
        if mean.op_type == "GlobalAveragePool":
            axes = ["spatial_axes"]
            self.used["spatial_axes"] = numpy_helper.from_array(np.array([2, 3]), "spatial_axes")
        keep = next((a.i for a in mean.attribute if a.name == "keepdims"), 1)
        self._node("ReduceSum", [mean.input[0], *axes], total, keepdims=keep)
        self._round(total, rounded)
        self.used["nought"] = numpy_helper.from_array(np.float32(0), "nought")
        self._node("Mul", [rounded, "nought"], f"{rounded}_nought")
        self._node("Add", [mean.output[0], f"{rounded}_nought"], result)
        return result

    def _node(self, kind: str, inputs: list[str], output: str, **attributes: int) -> None:
        self.nodes.append(helper.make_node(kind, inputs, [output], f"{kind.lower()}_{output}", **attributes))
        self.made.add(output)
