"""int8: static quantisation with QDQ nodes, weights per channel, ranges measured on training images only."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
from onnx import ModelProto, NodeProto, numpy_helper
from onnxruntime.quantization import QuantType
from onnxruntime.quantization.qdq_quantizer import QDQQuantizer

from csg.provenance import CalibrationMethod, Int8Calibration
from csg_export.int8_ranges import Ranges, measured_ranges
from csg_export.layers import LAYERS
from csg_export.onnx_graph import check_graph, copied

QUANTIZED_OPERATORS = [
    "Conv",
    "Gemm",
    "MatMul",
    "Add",
    "Relu",
    "Clip",
    "MaxPool",
    "AveragePool",
    "GlobalAveragePool",
    "Concat",
]
"""Operators with int8 kernels in ONNX Runtime and TensorRT. The normalisation and the upsampling stay float32."""


@dataclass(frozen=True)
class Int8Dialect:
    """The kind of QDQ graph that a runtime takes."""

    activations: QuantType
    """Type of the activations."""
    symmetric: bool
    """Whether activations have no zero point."""
    quantize_bias: bool
    """Whether biases are int32; otherwise float32."""
    calibration: Mapping[Literal["classification", "segmentation"], CalibrationMethod]
    """The default method for each task: what cost least on digits, PACS and digit scenes (docs/export.md)."""


ONNXRUNTIME_INT8 = Int8Dialect(
    activations=QuantType.QUInt8,
    symmetric=False,
    quantize_bias=True,
    calibration={"classification": "entropy", "segmentation": "percentile"},
)
"""For ONNX Runtime and OpenVINO: uint8 activations with a zero point, which absorbs ReLUs into the ranges."""

TENSORRT_INT8 = Int8Dialect(
    activations=QuantType.QInt8,
    symmetric=True,
    quantize_bias=False,
    calibration={"classification": "minmax", "segmentation": "entropy"},
)
"""For TensorRT: int8 activations without zero point, float32 biases."""


@dataclass(frozen=True)
class Int8Plan:
    """How a float32 graph becomes an int8 graph."""

    model: ModelProto
    """The float32 graph."""
    ranges: Ranges
    """The range of each value."""
    dialect: Int8Dialect
    """The kind of graph that the runtime takes."""
    excluded: tuple[str, ...] = ()
    """Names of nodes that are not quantised: of the first and the last layer. Their inputs may be 8 bits."""
    float32_nodes: frozenset[str] = frozenset()
    """Names of nodes that compute in float32 from float32 values wherever no int8 node makes them."""
    float32_sums: bool = False
    """Whether sums, and the results of matrix products, are float32."""
    biases: Mapping[str, np.ndarray] = field(default_factory=dict)
    """Corrected biases: what replaces a constant, by its name; only where the layer is int8."""

    @property
    def operators(self) -> list[str]:
        """The operators that are quantised."""
        return [name for name in QUANTIZED_OPERATORS if name != "Add" or not self.float32_sums]


def to_int8(
    model: ModelProto, batches: Sequence[np.ndarray], settings: Int8Calibration, dialect: Int8Dialect
) -> ModelProto:
    """Quantise a float32 graph; its inputs and outputs keep their types.

    Args:
        batches: prepared training images, uint8 (B, H, W, 3).
        settings: the calibration method, and whether the first and the last layer stay float32.
    """
    return quantise(plain_plan(model, batches, settings, dialect))


def plain_plan(
    model: ModelProto, batches: Sequence[np.ndarray], settings: Int8Calibration, dialect: Int8Dialect
) -> Int8Plan:
    """The plan of a graph that needs no repair; arguments as for `to_int8`."""
    model, excluded = copied(model), []
    if settings.fp32_first_last:
        excluded = [*_first_and_last_layer(model), *_pool_in_float32(model)]
    ranges = measured_ranges(model, batches, settings.method, dialect.symmetric, QUANTIZED_OPERATORS)
    return Int8Plan(model, ranges, dialect, tuple(excluded))


def quantise(plan: Int8Plan) -> ModelProto:
    """The int8 graph of a plan, checked by onnx's checker."""
    model, dialect = _with_biases(plan), plan.dialect
    products = {"OpTypesToExcludeOutputQuantization": ["MatMul"]} if plan.float32_sums else {}
    quantizer = QDQQuantizer(
        model=model,
        per_channel=True,
        reduce_range=False,
        weight_qType=QuantType.QInt8,
        activation_qType=dialect.activations,
        tensors_range=plan.ranges,
        nodes_to_quantize=[],
        nodes_to_exclude=[*plan.excluded, *sorted(plan.float32_nodes)],
        op_types_to_quantize=plan.operators,
        extra_options={"ActivationSymmetric": dialect.symmetric, "QuantizeBias": dialect.quantize_bias, **products},
    )
    quantizer.quantize_model()
    if plan.float32_nodes:
        _bypass_quantisation(quantizer.model.model, plan)
    quantizer.model.topological_sort()
    quantized: ModelProto = quantizer.model.model
    del quantized.opset_import[1:]  # the quantizer adds ONNX Runtime's own domain and uses nothing of it
    check_graph(quantized)
    return quantized


def _with_biases(plan: Int8Plan) -> ModelProto:
    """The float32 graph with the corrected biases of the layers that become int8."""
    model = copied(plan.model)
    float32 = {name for node in model.graph.node if node.name in plan.float32_nodes for name in node.input}
    for constant in model.graph.initializer:
        if constant.name in plan.biases and constant.name not in float32:
            constant.CopyFrom(numpy_helper.from_array(plan.biases[constant.name], constant.name))
    return model


def _bypass_quantisation(model: ModelProto, plan: Int8Plan) -> None:
    """Let float32 nodes read float32 values as they are, wherever no int8 node makes them.

    The quantizer gives the rounded value to every user of a value that one int8 node reads. A float32 sum of values
    that are all rounded would also be an int8 sum for ONNX Runtime, which looks for the rounding around a node.
    """
    graph = model.graph
    makers = {name: node for node in graph.node for name in node.output}
    float32 = {*plan.excluded, *plan.float32_nodes}
    for node in graph.node:
        if node.name not in plan.float32_nodes:
            continue
        for index, name in enumerate(node.input):
            source = _before_rounding(name, makers)
            maker = makers.get(source)
            if source != name and (maker is None or maker.name in float32 or maker.op_type not in plan.operators):
                node.input[index] = source
    used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}
    for operator in ("DequantizeLinear", "QuantizeLinear"):
        unused = [node for node in graph.node if node.op_type == operator and node.output[0] not in used]
        for node in unused:
            graph.node.remove(node)
        used = {name for node in graph.node for name in node.input} | {output.name for output in graph.output}


def _before_rounding(name: str, makers: Mapping[str, NodeProto]) -> str:
    """What is quantised and dequantised again to make the value `name`; `name` itself if it is no such value."""
    back = makers.get(name)
    there = makers.get(back.input[0]) if back is not None and back.op_type == "DequantizeLinear" else None
    return there.input[0] if there is not None and there.op_type == "QuantizeLinear" else name


def _first_and_last_layer(model: ModelProto) -> list[str]:
    names = [node.name for node in model.graph.node if node.op_type in LAYERS]
    return [names[0], names[-1]]


def _pool_in_float32(model: ModelProto) -> list[str]:
    """Move a ResNet's first max pooling before the ReLU of its float32 convolution; returns the pooling's name, if any.

    The values are the same. Otherwise ONNX Runtime moves the quantisation before the pooling, and its 8-bit pooling is
    slow there: 17 ms instead of 1 ms, of the 115 ms that ResNet-50 takes for 8 images.
    """
    nodes = model.graph.node
    users = {name: [node for node in nodes if name in node.input] for node in nodes for name in node.output}
    first = next(node for node in nodes if node.op_type in LAYERS)
    relu = users[first.output[0]]
    pool = users[relu[0].output[0]] if [node.op_type for node in relu] == ["Relu"] else []
    if [node.op_type for node in pool] != ["MaxPool"]:
        return []
    before, after = NodeProto(), NodeProto()
    before.CopyFrom(pool[0])
    after.CopyFrom(relu[0])
    before.input[0], after.input[0] = relu[0].input[0], pool[0].input[0]
    before.output[0], after.output[0] = relu[0].output[0], pool[0].output[0]
    relu[0].CopyFrom(before)
    pool[0].CopyFrom(after)
    shapes = [value for value in model.graph.value_info if value.name != before.output[0]]
    del model.graph.value_info[:]
    model.graph.value_info.extend(shapes)
    return [before.name]
