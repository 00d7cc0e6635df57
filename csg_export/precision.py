"""fp16: half the size, for GPUs with fast half-precision arithmetic; input and logits stay as they are."""

from __future__ import annotations

import numpy as np
import onnx
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from csg_export.onnx_graph import check

FP32, FP16 = TensorProto.FLOAT, TensorProto.FLOAT16
FP16_NOTE = (
    "weights and arithmetic fp16; normalisation, global pooling and the logits fp32. "
    "ONNX Runtime on a CPU computes it in fp32 behind casts: correct, but slower than the fp32 graph"
)
SENSITIVE = ("ReduceMean", "GlobalAveragePool", "Resize", "ArgMax")
FP32_NOTE = "weights and arithmetic fp32"


def to_fp16(model: ModelProto) -> ModelProto:
    """An fp16 graph with the same input and the same float32 outputs.

    Kept in fp32: everything before the first convolution, that is the normalisation of pixel values up to 255,
    means over many positions, whose sums may leave fp16's range, and a segmenter's upsampling of logits.
    """
    nodes = list(model.graph.node)
    first = next((place for place, node in enumerate(nodes) if node.op_type == "Conv"), len(nodes))
    kept = {id(node) for place, node in enumerate(nodes) if place < first or node.op_type in SENSITIVE}
    half = _Retyped(model)
    for node in nodes:
        half.add(node, FP32 if id(node) in kept else FP16)
    return half.finished()


class _Retyped:
    """A graph built node by node, each in float32 or float16, with casts where the two meet."""

    def __init__(self, model: ModelProto):
        self.model = ModelProto()
        self.model.CopyFrom(onnx.shape_inference.infer_shapes(model))
        graph = self.model.graph
        self.type = {v.name: v.type.tensor_type.elem_type for v in (*graph.input, *graph.value_info, *graph.output)}
        self.constants = {constant.name: constant for constant in graph.initializer}
        self.type |= {name: constant.data_type for name, constant in self.constants.items()}
        self.nodes: list[NodeProto] = []
        self.used: dict[str, TensorProto] = {}
        self.renamed: dict[str, str] = {}

    def add(self, node: NodeProto, to: int) -> None:
        copy = NodeProto()
        copy.CopyFrom(node)
        copy.input[:] = [self._as(name, to) for name in node.input]
        for place, name in enumerate(node.output):
            if self.type.get(name) == FP32 and to == FP16:
                self.renamed[name] = copy.output[place] = f"{name}_fp16"
        self.nodes.append(copy)

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

    def _as(self, name: str, to: int) -> str:
        """The name of the value called `name` in the original graph, as float type `to` if it is a float."""
        if self.type.get(name) != FP32:
            if name in self.constants:
                self.used[name] = self.constants[name]
            return name
        wanted = f"{name}_fp16" if to == FP16 else name
        if name in self.constants:
            values = numpy_helper.to_array(self.constants[name])
            kind = np.float16 if to == FP16 else np.float32
            self.used[wanted] = numpy_helper.from_array(values.astype(kind), wanted)
            return wanted
        made = self.renamed.get(name, name)
        if made != wanted and not any(wanted in node.output for node in self.nodes):
            self.nodes.append(helper.make_node("Cast", [made], [wanted], f"cast_{wanted}", to=to))
        return wanted
