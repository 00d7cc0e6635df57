"""fp16: which blocks stay float32, and the rounded twin, on small networks."""

import numpy as np
import onnx
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from csg_export.block_search import blocks_of, minimal_set
from csg_export.fp16 import to_fp16
from csg_export.fp16_graph import exists_in_fp16, in_fp16, rounded_to_fp16
from csg_export.onnx_graph import INPUT, LOGITS, OPSET
from csg_export.runners import torch_runner
from tests.helpers.small_networks import IMAGES, Chain, graph, run


def close(reference, tolerance=0.02):
    return lambda model: bool(np.abs(run(model) - reference).max() <= tolerance * np.abs(reference).max())


def small_graph(nodes, constants, opset):
    """A graph of images (N, 3)."""
    images = helper.make_tensor_value_info(INPUT, TensorProto.UINT8, ("N", 3))
    logits = helper.make_tensor_value_info(LOGITS, TensorProto.FLOAT, ("N", 3))
    model = helper.make_model(
        helper.make_graph(nodes, "small", [images], [logits], constants), opset_imports=[helper.make_opsetid("", opset)]
    )
    model.ir_version = 8
    return model


@given(st.integers(1, 40), st.sets(st.integers(0, 39)))
def test_bisection_finds_exactly_what_is_needed(count, needed):
    needed = frozenset(n for n in needed if n < count)
    asked = []

    def passes(items):
        asked.append(items)
        return needed <= items

    assert minimal_set(range(count), passes) == needed
    assert len(asked) == len(set(asked)) <= 3 + 2 * len(needed) * (1 + np.log2(count))
    assert minimal_set(range(count), lambda items: False) is None


@pytest.mark.parametrize("loud", [0, 1, 2])
def test_an_overflow_is_found_and_its_block_alone_stays_fp32(loud):
    network = Chain(loud)
    model, reference = graph(network), torch_runner(network)(IMAGES).logits
    assert not np.isfinite(run(rounded_to_fp16(model, ()))).all()
    graphs = to_fp16(model, close(reference))
    blocks = blocks_of(model)
    assert graphs.float32_blocks[0] == blocks[loud + 1][0], "block 0 is what precedes the first convolution"
    assert len(graphs.float32_blocks) <= 2, "the block that overflows, and the next, with tiny weights"
    np.testing.assert_allclose(run(graphs.model), reference, atol=0.02 * np.abs(reference).max())
    np.testing.assert_allclose(run(graphs.rounded), reference, atol=0.02 * np.abs(reference).max())
    types = {w.data_type for w in graphs.model.graph.initializer if len(w.dims) == 4}
    assert types == {TensorProto.FLOAT, TensorProto.FLOAT16}


def test_a_network_without_an_overflow_is_fp16_throughout():
    network = Chain()
    graphs = to_fp16(graph(network), close(torch_runner(network)(IMAGES).logits))
    assert graphs.float32_blocks == ()
    assert all(w.data_type != TensorProto.FLOAT for w in graphs.model.graph.initializer if len(w.dims) > 1)
    assert [o.type.tensor_type.elem_type for o in graphs.model.graph.output] == [TensorProto.FLOAT]


def test_the_rounded_graph_rounds_as_torch_does():
    """Against the same network computed value by value: float32 sums of fp16 values, each result rounded."""
    network = Chain()

    def half(x):
        return x.half().float()

    with torch.inference_mode():
        x = half(half(torch.from_numpy(IMAGES).float().permute(0, 3, 1, 2)) - 120)
        x = half(x / 60)
        for layer in network.layers:
            y = nn.functional.conv2d(x, half(layer.weight), half(layer.bias), padding=1)
            x = half(y).relu()
        expected = half(x.mean((2, 3)))
    np.testing.assert_allclose(run(rounded_to_fp16(graph(network), ())), expected, rtol=2e-3, atol=1e-3)


def test_a_mean_whose_sum_overflows_counts_as_an_overflow():
    class Mean(nn.Module):
        def forward(self, images):
            return images.float().permute(0, 3, 1, 2).mean((2, 3))

    white = np.full((1, 24, 24, 3), 255, np.uint8)  # 576 of 255 are beyond 65504
    assert np.isnan(run(rounded_to_fp16(graph(Mean()), ()), white)).all()
    assert np.isfinite(run(rounded_to_fp16(graph(Mean()), ()), white // 4)).all()


@pytest.mark.parametrize(
    ("operator", "inputs", "expected"),
    [("Range", ["zero", "three", "step"], [[10, 11, 12]]), ("Celu", ["pixels"], [[20, 20, 20]])],
)
def test_an_operator_that_has_no_fp16_stays_float32_between_casts(operator, inputs, expected):
    numbers = {"zero": 0.0, "three": 3.0, "step": 1.0}
    constants = [numpy_helper.from_array(np.float32(value), name) for name, value in numbers.items()]
    nodes = [
        helper.make_node("Cast", [INPUT], ["pixels"], "cast", to=TensorProto.FLOAT),
        helper.make_node(operator, inputs, ["found"], "operator"),
        helper.make_node("Add", ["pixels", "found"], [LOGITS], "add"),
    ]
    model = small_graph(nodes, constants, 21)
    images = np.full((1, 3), 10, np.uint8)
    for made in (in_fp16(model, ()), rounded_to_fp16(model, ())):
        assert run(made, images).tolist() == expected
    assert [node.op_type for node in in_fp16(model, ()).graph.node].count(operator) == 1


def test_every_operator_that_onnx_has_for_float32_alone_is_known():
    float32_alone = {
        schema.name
        for schema in onnx.defs.get_all_schemas_with_history()
        if onnx.defs.has(schema.name, OPSET, schema.domain) and schema.domain == ""
        if not onnx.defs.get_schema(schema.name, OPSET).deprecated
        if not exists_in_fp16(helper.make_node(schema.name, ["x"] * 3, ["y"]), OPSET)
    }
    assert float32_alone == {"Celu", "DynamicQuantizeLinear", "Range", "TfIdfVectorizer"}


def test_onnxruntime_says_nothing_of_constants_that_it_cannot_fold(capfd):
    """As in ViTs whose attention adds a bias that is made from constants."""
    halves = [numpy_helper.from_array(np.ones(3, np.float16), name) for name in ("one", "other")]
    nodes = [
        helper.make_node("Add", ["one", "other"], ["sum"]),
        helper.make_node("Cast", [INPUT], ["pixels"], to=TensorProto.FLOAT16),
        helper.make_node("Add", ["pixels", "sum"], ["shifted"]),
        helper.make_node("Cast", ["shifted"], [LOGITS], to=TensorProto.FLOAT),
    ]
    assert run(small_graph(nodes, halves, 17), np.zeros((1, 3), np.uint8)).tolist() == [[2, 2, 2]]
    assert "onnxruntime" not in capfd.readouterr().err
