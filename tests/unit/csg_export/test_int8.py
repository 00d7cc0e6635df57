"""int8: how it is made, on small networks, and what its bundle says."""

import functools
import tracemalloc

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper
from torch import nn

from csg.errors import VerificationError
from csg_export.inspect import graph_contents
from csg_export.int8 import ONNXRUNTIME_INT8, QUANTIZED_OPERATORS, TENSORRT_INT8, to_int8
from csg_export.int8_ranges import least_squares_range, measured_ranges
from csg_export.runners import torch_runner
from tests.helpers.small_networks import CALIBRATION, IMAGES, Chain, graph, run

FP32_FIRST_LAST = CALIBRATION.model_copy(update={"fp32_first_last": True})


@pytest.mark.slow
@settings(max_examples=8)
@given(
    st.lists(st.integers(2, 9), min_size=2, max_size=3),
    st.sampled_from([ONNXRUNTIME_INT8, TENSORRT_INT8]),
    st.sampled_from(["minmax", "percentile"]),
)
def test_int8_follows_the_network(widths, dialect, method):
    network = Chain(widths=(3, *widths))
    expected = torch_runner(network)(IMAGES).logits
    how = CALIBRATION.model_copy(update={"method": method})
    model = to_int8(graph(network), [IMAGES], how, dialect)
    assert np.abs(run(model) - expected).max() <= 0.15 * max(1, np.abs(expected).max())
    weights = [w for w in model.graph.initializer if len(w.dims) == 4]
    assert weights
    assert all(w.data_type == TensorProto.INT8 for w in weights)
    assert {i.domain for i in model.opset_import} == {""}
    zero_points = {
        numpy_helper.to_array(w).any() for w in model.graph.initializer if w.name.endswith("zero_point") and w.dims
    }
    if dialect is TENSORRT_INT8:
        assert not any(zero_points)
        assert not any(w.data_type in (TensorProto.UINT8, TensorProto.INT32) for w in model.graph.initializer)


def test_int8_pools_in_float_what_a_first_layer_in_float_gives():
    stem = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(3, 2), nn.Conv2d(4, 4, 3), nn.ReLU())

    class Network(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.head = stem, nn.Linear(4, 5)

        def forward(self, images):
            return self.head(self.stem(images.float().permute(0, 3, 1, 2) / 255).mean((2, 3)))

    network = Network().eval()
    model = to_int8(graph(network), [IMAGES], FP32_FIRST_LAST, ONNXRUNTIME_INT8)
    makers = {name: node for node in model.graph.node for name in node.output}
    (pool,) = [node for node in model.graph.node if node.op_type == "MaxPool"]
    assert makers[pool.input[0]].op_type == "Conv"
    expected = torch_runner(network)(IMAGES).logits
    assert np.abs(run(model) - expected).max() <= 0.15 * max(1, np.abs(expected).max())


@pytest.mark.slow
def test_percentiles_of_values_that_are_alike_at_first_take_no_memory():
    """ONNX Runtime's histogram of absolute values has bins as wide as the first ones need, for all that follow."""

    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)

        def forward(self, images):
            return self.conv(images.float().permute(0, 3, 1, 2).mean((2, 3), keepdim=True) / 255).flatten(1)

    alike = np.full((2, 24, 24, 3), 99, np.uint8)
    alike[1, 0, 0] += 1
    how = CALIBRATION.model_copy(update={"method": "percentile"})
    tracemalloc.start()
    to_int8(graph(Mean()), [alike, IMAGES], how, TENSORRT_INT8)
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()


@functools.cache
def overflowing(weight, channels):
    """The graph of a network with finite logits, of whose four maps some are infinite or NaN."""

    class Overflowing(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 4, 1)
            nn.init.constant_(self.conv.weight[:channels], weight)

        def forward(self, images):
            maps = self.conv(images.permute(0, 3, 1, 2).float())
            return torch.nan_to_num(maps, 0, 1, -1).mean((2, 3))

    return graph(Overflowing())


@pytest.mark.parametrize("method", ["minmax", "minmax90", "entropy", "percentile", "mse"])
@pytest.mark.parametrize("weight", [1e38, float("nan")])
@pytest.mark.parametrize("channels", [1, 4])
def test_a_network_whose_inner_values_are_not_finite_is_refused(method, weight, channels):
    how = CALIBRATION.model_copy(update={"method": method})
    with pytest.raises(VerificationError, match="not finite on training images"):
        to_int8(overflowing(weight, channels), [IMAGES], how, ONNXRUNTIME_INT8)


def test_int8_can_leave_the_first_and_the_last_layer_in_float32():
    model = to_int8(graph(Chain()), [IMAGES], FP32_FIRST_LAST, ONNXRUNTIME_INT8)
    weights = [w.data_type for w in model.graph.initializer if len(w.dims) == 4]
    assert sorted(weights) == [TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT8, TensorProto.INT8]


@pytest.mark.slow
def test_int8_is_calibrated_on_training_images_and_judged_on_real_ones(exported):
    bundle = exported("int8")
    card = bundle.card
    assert card.calibration.source.startswith("digits-v")
    assert card.calibration.images == 200
    assert card.calibration.method == "entropy"
    student, measured = card.evaluations
    assert (student.of, measured.of, measured.images) == ("student", "graph", 1797)
    assert student.accuracy - measured.accuracy <= 0.01
    assert [s.stage for s in card.parity.stages] == ["stripped student", "onnx", "int8"] * 2
    assert card.parity.agreement == card.parity.stages[2].agreement
    inside = graph_contents(onnx.load(bundle.model))
    assert inside.numbers["int8"] > 10 * inside.numbers["float"]
    assert inside.layers["int8"] > 50


@pytest.mark.parametrize("symmetric", [False, True])
def test_a_range_of_least_squares_clips_a_single_outlier(symmetric):
    values, counts = np.append(np.linspace(0, 1, 1000), 100.0), np.full(1001, 1000)
    counts[-1] = 1
    low, high = least_squares_range(values, counts, symmetric)
    assert low == (-high if symmetric else 0)
    assert 1 <= high < 100
    assert least_squares_range(values[:-1], counts[:-1], symmetric)[1] == pytest.approx(1, rel=0.2)
    assert least_squares_range(np.zeros(3), np.ones(3), symmetric) == (0, 0)


@pytest.mark.parametrize("dialect", [ONNXRUNTIME_INT8, TENSORRT_INT8], ids=["onnxruntime", "tensorrt"])
def test_minmax90_clips_nothing_of_nine_images_in_ten(dialect):
    """The range ends between the 27th and the 28th of 30 images; how bright the last two are does not widen it."""

    class Mean(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 1, 1, bias=False)
            nn.init.constant_(self.conv.weight, 1 / 3)

        def forward(self, images):
            return self.conv(images.float().permute(0, 3, 1, 2)).mean((2, 3))

    grey = [*range(1, 28), 90, 120, 250]
    images = np.stack([np.full((24, 24, 3), value, np.uint8) for value in grey])
    model = graph(Mean())
    (conv,) = [node.output[0] for node in model.graph.node if node.op_type == "Conv"]
    measured = {
        method: measured_ranges(model, np.split(images, 3), method, dialect.symmetric, QUANTIZED_OPERATORS)[conv]
        for method in ("minmax", "minmax90")
    }
    assert measured["minmax"].range_value[1] == pytest.approx(250)
    assert measured["minmax90"].range_value[1] == pytest.approx(np.quantile(grey, 0.9))
