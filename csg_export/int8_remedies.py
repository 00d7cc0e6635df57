"""Changes to a float32 graph after which int8 costs less, at no cost at inference.

Both leave the float32 graph's answers as they are on the calibration images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import onnxruntime as ort
from onnx import ModelProto, NodeProto, TensorProto, helper, numpy_helper

from csg_export.int8 import Int8Plan
from csg_export.layers import LAYERS
from csg_export.onnx_graph import INPUT, copied

LARGEST_CHANGE = 32.0
"""Largest factor of a channel in `equalised`."""


class _Graph:
    """A graph with its nodes by what they make and read."""

    def __init__(self, model: ModelProto):
        self.nodes = list(model.graph.node)
        self.constants = {constant.name: constant for constant in model.graph.initializer}
        self.users: dict[str, list[NodeProto]] = {output.name: [] for output in model.graph.output}
        self.outputs = set(self.users)
        for node in self.nodes:
            for name in node.input:
                self.users.setdefault(name, []).append(node)

    def array(self, name: str) -> np.ndarray:
        return np.asarray(numpy_helper.to_array(self.constants[name]))

    def own_constant(self, node: NodeProto, index: int) -> str | None:
        """The name of a float32 constant that this node alone reads; None if its input is another."""
        name = node.input[index] if len(node.input) > index else ""
        own = name in self.constants and self.constants[name].data_type == TensorProto.FLOAT
        return name if own and len(self.users[name]) == 1 else None

    def only_user(self, name: str) -> NodeProto | None:
        users = self.users.get(name, [])
        return users[0] if len(users) == 1 and name not in self.outputs else None


@dataclass(frozen=True)
class _Pair:
    """A layer, and those that read its values channel by channel."""

    maker: tuple[str, ...]
    """Constants of the layer: weight and bias, output channels first."""
    value: str
    """The value between them."""
    axis: int
    """Axis of its channels."""
    users: tuple[tuple[str, str], ...]
    """Weight of each layer that reads it, and where its channels are: rows, columns or depthwise."""
    limited: bool
    """Whether a Clip is between them: a channel may only grow, to its largest value."""


def equalised(model: ModelProto, samples: Sequence[np.ndarray]) -> ModelProto | None:
    """The same graph with channels of similar size; None if it has no layers to equalise.

    A channel is divided by s where a convolution or a LayerNorm makes it, and multiplied by s in the weights that read
    it. s = sqrt(a / w) for the largest activation a and weight w of the channel, the rule of Nagel et al., "Data-Free
    Quantization Through Weight Equalization and Bias Correction" (ICCV 2019, eq. 11) with a in place of the maker's
    weights, which have a scale for each channel here; for LayerNorm it is that of SmoothQuant (Xiao et al., ICML 2023,
    eq. 4, alpha 0.5). A depthwise reader has a scale for each channel, too: s = a. Behind a Clip (ReLU6), a channel
    only grows up to the largest one, so that the Clip changes no value that occurs on the samples.

    Args:
        model: a float32 graph.
        samples: batches of prepared images, uint8 (B, H, W, 3).
    """
    graph = _Graph(model)
    pairs = [pair for node in graph.nodes if (pair := _pair(graph, node))]
    if not pairs:
        return None
    largest = {pair.value: np.float32(0) for pair in pairs}
    for values in _values(model, [*largest], samples):
        for pair in pairs:
            seen = _by_channel(np.abs(values[pair.value]), pair.axis).max(1)
            largest[pair.value] = np.maximum(largest[pair.value], seen)
    arrays = {name: graph.array(name).copy() for pair in pairs for name in (*pair.maker, *dict(pair.users))}
    for pair in pairs:
        scale_C = _scales(pair, np.asarray(largest[pair.value]), arrays)
        for name in pair.maker:
            arrays[name] = arrays[name] / _along(scale_C, arrays[name], 0)
        for name, kind in pair.users:
            arrays[name] = arrays[name] * _along(
                _repeated(scale_C, arrays[name], kind), arrays[name], kind == "columns"
            )
    return _with_constants(model, arrays)


def _pair(graph: _Graph, node: NodeProto) -> _Pair | None:
    if node.op_type not in ("Conv", "LayerNormalization"):
        return None
    names = [graph.own_constant(node, index) for index in range(1, len(node.input))]
    maker = tuple(name for name in names if name)
    if len(maker) < len(names) or any(len(graph.array(name)) < 2 for name in maker):
        return None
    value, limited, norm = node.output[0], False, node.op_type == "LayerNormalization"
    if norm and next((a.i for a in node.attribute if a.name == "axis"), -1) != -1:
        return None
    after = graph.only_user(value)
    if not norm and after is not None and _is_clip_or_relu(graph, after):
        value, limited = after.output[0], after.op_type == "Clip"
    users = [_user(graph, user, value, norm) for user in graph.users.get(value, [])]
    found = tuple(user for user in users if user)
    if not found or len(found) < len(users) or value in graph.outputs:
        return None
    return _Pair(maker, value, -1 if norm else 1, found, limited)


def _is_clip_or_relu(graph: _Graph, node: NodeProto) -> bool:
    if node.op_type != "Clip":
        return bool(node.op_type == "Relu")
    return len(node.input) > 1 and node.input[1] in graph.constants and not graph.array(node.input[1]).any()


def _user(graph: _Graph, node: NodeProto, value: str, norm: bool) -> tuple[str, str] | None:
    weight = graph.own_constant(node, 1) if len(node.input) > 1 and node.input[0] == value else None
    if weight is None or node.op_type != ("MatMul" if norm else "Conv"):
        return None
    if norm:
        return (weight, "rows") if graph.array(weight).ndim == 2 else None
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    if groups == 1:
        return weight, "columns"
    return (weight, "depthwise") if graph.array(weight).shape[1] == 1 else None


def _scales(pair: _Pair, largest_C: np.ndarray, arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    weight_C = np.zeros_like(largest_C)
    for name, kind in pair.users:
        if kind != "depthwise":
            weight_C = np.maximum(weight_C, _by_channel(np.abs(arrays[name]), int(kind == "columns")).max(1))
    scale_C = np.sqrt(largest_C / np.where(weight_C > 0, weight_C, 1)) if weight_C.any() else largest_C.copy()
    used_C = (largest_C > 0) & ((weight_C > 0) | (not weight_C.any()))
    if not used_C.any():
        return np.ones_like(largest_C)
    scale_C[~used_C] = 1
    scale_C *= (largest_C / scale_C)[used_C].max() / largest_C[used_C].max()
    scale_C = scale_C.clip(1 / LARGEST_CHANGE, 1 if pair.limited else LARGEST_CHANGE)
    scale_C[~used_C] = 1
    return np.maximum(scale_C, largest_C / largest_C.max()) if pair.limited else scale_C


def _repeated(scale_C: np.ndarray, weight: np.ndarray, kind: str) -> np.ndarray:
    return np.repeat(scale_C, len(weight) // len(scale_C)) if kind == "depthwise" else scale_C


def _along(values_C: np.ndarray, like: np.ndarray, axis: int) -> np.ndarray:
    return values_C.reshape([-1 if index == axis else 1 for index in range(like.ndim)]).astype(like.dtype)


def _by_channel(values: np.ndarray, axis: int) -> np.ndarray:
    return np.moveaxis(values, axis, 0).reshape(values.shape[axis], -1)


def corrected_biases(plan: Int8Plan, samples: Sequence[np.ndarray]) -> dict[str, np.ndarray]:
    """Biases that undo the mean error of each int8 layer, by the name of the constant.

    b - (mean of Wq xq - mean of W x) for each output channel, where q is the rounding to 8 bits and x comes from the
    float32 graph (Nagel et al. 2019, section 4.2, with the error of the input beside that of the weights).

    Args:
        plan: what becomes int8, and the ranges of the values.
        samples: batches of prepared images, uint8 (B, H, W, 3).

    Returns:
        Arrays of the shapes of the constants; none if no int8 layer has a bias of its own.
    """
    graph = _Graph(plan.model)
    layers = [(node, bias) for node in graph.nodes if (bias := _bias(graph, node)) and node.name not in plan.excluded]
    layers = [(node, bias) for node, bias in layers if node.input[0] in plan.ranges]
    if not layers:
        return {}
    means: dict[str, list[np.ndarray]] = {node.input[0]: [] for node, _ in layers}
    axes = {node.input[0]: 1 if node.op_type == "Conv" else -1 for node, _ in layers}
    for values in _values(plan.model, [*means], samples):
        for name, found in means.items():
            exact, axis = values[name], axes[name]
            both = [_by_channel(array, axis).mean(1) for array in (exact, _rounded(exact, plan, name))]
            found.append(np.stack(both))
    biases = {}
    for node, bias in layers:
        exact_C, rounded_C = np.mean(means[node.input[0]], 0)
        weight, axis = graph.array(node.input[1]), _output_axis(node)
        largest = _along(_by_channel(np.abs(weight), axis).max(1), weight, axis)
        step = np.where(largest > 0, largest, 1) / 127
        error_C = _product(node, (weight / step).round() * step, rounded_C) - _product(node, weight, exact_C)
        biases[bias] = (graph.array(bias) - error_C).astype(np.float32)
    return biases


def _bias(graph: _Graph, node: NodeProto) -> str | None:
    """The constant that is added to the result of a layer with a constant weight."""
    if node.op_type not in LAYERS or graph.own_constant(node, 1) is None:
        return None
    if node.op_type != "MatMul":
        return graph.own_constant(node, 2)
    after = graph.only_user(node.output[0])
    if after is None or after.op_type != "Add":
        return None
    bias = graph.own_constant(after, 0) or graph.own_constant(after, 1)
    width = graph.array(node.input[1]).shape[-1]
    return bias if bias and graph.array(bias).shape == (width,) else None


def _rounded(values: np.ndarray, plan: Int8Plan, name: str) -> np.ndarray:
    low, high = (float(np.ravel(end)[0]) for end in plan.ranges[name].range_value)
    low, high = min(low, 0.0), max(high, 0.0)
    if plan.dialect.symmetric:
        low, high = -max(high, -low), max(high, -low)
    steps = 254 if plan.dialect.symmetric else 255
    step = (high - low) / steps or 1.0
    zero = np.round(-low / step)
    return np.asarray((((values / step).round() + zero).clip(0, steps) - zero) * step)


def _output_axis(node: NodeProto) -> int:
    transposed = any(a.name == "transB" and a.i for a in node.attribute)
    return 0 if node.op_type == "Conv" or transposed else 1


def _product(node: NodeProto, weight: np.ndarray, mean_C: np.ndarray) -> np.ndarray:
    """The layer's mean result for inputs of mean `mean_C`, without the bias; borders count as the middle."""
    if node.op_type != "Conv":
        return np.asarray(weight @ mean_C if _output_axis(node) == 0 else mean_C @ weight)
    groups = next((a.i for a in node.attribute if a.name == "group"), 1)
    summed_OI = weight.reshape(*weight.shape[:2], -1).sum(2)
    means_GI = np.repeat(mean_C.reshape(groups, -1), len(weight) // groups, axis=0)
    return np.asarray((summed_OI * means_GI).sum(1))


def _values(
    model: ModelProto, names: Sequence[str], samples: Sequence[np.ndarray]
) -> Iterator[Mapping[str, np.ndarray]]:
    """The values named of a float32 graph, by name, a batch at a time."""
    wider = copied(model)
    present = {output.name for output in wider.graph.output}
    wider.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in names if name not in present
    )
    session = ort.InferenceSession(wider.SerializeToString(), providers=["CPUExecutionProvider"])
    for images in samples:
        yield dict(zip(names, session.run([*names], {INPUT: images}), strict=True))


def _with_constants(model: ModelProto, arrays: Mapping[str, np.ndarray]) -> ModelProto:
    changed = copied(model)
    for constant in changed.graph.initializer:
        if constant.name in arrays:
            constant.CopyFrom(numpy_helper.from_array(arrays[constant.name].astype(np.float32), constant.name))
    return changed
