"""fp16, int8, bf16, engines: how they are made, on small networks, and that each bundle is what it says."""

import itertools
import tracemalloc

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper
from torch import nn

from csg.bundle import read_bundle
from csg.card import Calibration, ClassificationInput, SegmentationInput
from csg.errors import InputError, UsageError, VerificationError
from csg_export.command import contents, parse_batch
from csg_export.export import ExportOptions, export
from csg_export.fp16 import blocks_of, smallest, to_fp16
from csg_export.fp16_graph import in_fp16, rounded_to_fp16
from csg_export.int8 import to_int8
from csg_export.onnx_graph import files_of, to_onnx
from csg_export.parity import of_graph, of_network, of_openvino
from csg_export.parity_images import hard_inputs
from csg_export.sources import of_run, of_torchvision
from csg_export.tensorrt import EngineOptions, build_engine

SPEC = ClassificationInput(height=24, width=24, resize_shorter_side=24)
IMAGES = np.random.default_rng(0).integers(0, 256, (6, 24, 24, 3), dtype=np.uint8)
CALIBRATION = Calibration(source="x", images=6, method="minmax", float_ends=False)


class Chain(nn.Module):
    """Four convolutions; the one at `loud`, if any, has values beyond fp16's range, and the next one undoes it."""

    def __init__(self, loud=None, widths=(3, 6, 8, 6, 5)):
        super().__init__()
        torch.manual_seed(1)
        self.layers = nn.ModuleList(nn.Conv2d(a, b, 3, padding=1) for a, b in itertools.pairwise(widths))
        if loud is not None:
            with torch.no_grad():
                self.layers[loud].weight *= 1e6
                self.layers[loud + 1].weight /= 1e6

    def forward(self, images):
        x = (images.float().permute(0, 3, 1, 2) - 120) / 60
        for layer in self.layers:
            x = torch.relu(layer(x))
        return x.mean((2, 3))


def graph(network):
    return to_onnx(network.eval(), SPEC)


def run(model, images=IMAGES):
    return of_graph(model.SerializeToString())(images)[0]


def close(reference, tolerance=0.02):
    return lambda model: bool(np.abs(run(model) - reference).max() <= tolerance * np.abs(reference).max())


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 40), st.sets(st.integers(0, 39)))
def test_bisection_finds_exactly_what_is_needed(count, needed):
    needed = frozenset(n for n in needed if n < count)
    asked = []

    def holds(kept):
        asked.append(kept)
        return needed <= kept

    assert smallest(range(count), holds) == needed
    assert len(asked) == len(set(asked)) <= 3 + 2 * len(needed) * (1 + np.log2(count))
    assert smallest(range(count), lambda kept: False) is None


@pytest.mark.parametrize("loud", [0, 1, 2])
def test_an_overflow_is_found_and_its_block_alone_stays_in_fp32(loud):
    network = Chain(loud)
    model, reference = graph(network), of_network(network)(IMAGES)[0]
    assert not np.isfinite(run(rounded_to_fp16(model, ()))).all()
    half, rounded, note = to_fp16(model, close(reference))
    blocks = blocks_of(model)
    assert f"fp32 ({blocks[loud + 1][0]}" in note, "block 0 stands before the first convolution"
    assert note.count("node_") <= 2, "the block that overflows, and the next, whose weights are below fp16's range"
    np.testing.assert_allclose(run(half), reference, atol=0.02 * np.abs(reference).max())
    np.testing.assert_allclose(run(rounded), reference, atol=0.02 * np.abs(reference).max())
    types = {w.data_type for w in half.graph.initializer if len(w.dims) == 4}
    assert types == {TensorProto.FLOAT, TensorProto.FLOAT16}


def test_a_network_without_such_is_fp16_throughout():
    network = Chain()
    half, _, note = to_fp16(graph(network), close(of_network(network)(IMAGES)[0]))
    assert "; 0 of " in note
    assert all(w.data_type != TensorProto.FLOAT for w in half.graph.initializer if len(w.dims) > 1)
    assert [o.type.tensor_type.elem_type for o in half.graph.output] == [TensorProto.FLOAT]


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


@settings(deadline=None, max_examples=8)
@given(st.lists(st.integers(2, 9), min_size=2, max_size=3), st.booleans(), st.sampled_from(["minmax", "percentile"]))
def test_int8_follows_the_network(widths, for_tensorrt, method):
    network = Chain(widths=(3, *widths))
    expected = of_network(network)(IMAGES)[0]
    how = CALIBRATION.model_copy(update={"method": method})
    model = to_int8(graph(network), [IMAGES], how, for_tensorrt)
    assert np.abs(run(model) - expected).max() <= 0.15 * max(1, np.abs(expected).max())
    weights = [w for w in model.graph.initializer if len(w.dims) == 4]
    assert weights
    assert all(w.data_type == TensorProto.INT8 for w in weights)
    assert {i.domain for i in model.opset_import} == {""}
    zero_points = {
        numpy_helper.to_array(w).any() for w in model.graph.initializer if w.name.endswith("zero_point") and w.dims
    }
    if for_tensorrt:
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
    model = to_int8(graph(network), [IMAGES], CALIBRATION.model_copy(update={"float_ends": True}), False)
    makers = {name: node for node in model.graph.node for name in node.output}
    (pool,) = [node for node in model.graph.node if node.op_type == "MaxPool"]
    assert makers[pool.input[0]].op_type == "Conv"
    expected = of_network(network)(IMAGES)[0]
    assert np.abs(run(model) - expected).max() <= 0.15 * max(1, np.abs(expected).max())


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
    to_int8(graph(Mean()), [alike, IMAGES], how, for_tensorrt=True)
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()


def test_int8_can_leave_the_ends_alone():
    model = to_int8(graph(Chain()), [IMAGES], CALIBRATION.model_copy(update={"float_ends": True}), False)
    weights = [w.data_type for w in model.graph.initializer if len(w.dims) == 4]
    assert sorted(weights) == [TensorProto.FLOAT, TensorProto.FLOAT, TensorProto.INT8, TensorProto.INT8]


def test_int8_is_calibrated_on_training_images_and_judged_on_real_ones(trained, tmp_path):
    bundle = read_bundle(export(of_run(trained, None), ExportOptions("int8"), tmp_path / "bundle").path)
    card = bundle.card
    assert card.calibration.source.startswith("digits-v")
    assert card.calibration.images == 200
    assert card.calibration.method == "entropy"
    student, measured = card.evaluations
    assert (student.of, measured.of, measured.images) == ("student", "graph", 1797)
    assert student.accuracy - measured.accuracy <= 0.01
    assert [s.stage for s in card.parity.stages] == ["stripped student", "onnx", "int8"] * 2
    assert card.parity.agreement == card.parity.stages[2].agreement
    inside = contents(onnx.load(bundle.model))
    assert inside.numbers["int8"] > 10 * inside.numbers["float"]
    assert inside.layers["int8"] > 50


def test_int8_that_costs_more_than_a_point_is_not_written(trained, tmp_path, monkeypatch):
    monkeypatch.setattr("csg_export.export.MOST_LOST", -1.0)
    with pytest.raises(VerificationError, match=r"int8 costs .* points on digits"):
        export(of_run(trained, None), ExportOptions("int8"), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_bf16_is_close_and_says_what_computes_it(trained, tmp_path):
    card = export(of_run(trained, None), ExportOptions("bf16"), tmp_path / "bundle").card
    assert card.parity.stages[2].stage == "bf16, OpenVINO"
    assert "OpenVINO" in card.precision_note
    network = Chain()
    exact = of_openvino(graph(network).SerializeToString(), "f32")(IMAGES)[0]
    np.testing.assert_allclose(exact, of_network(network)(IMAGES)[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_tensorrt_rtx_builds_an_engine_of_every_precision(precision):
    model = graph(Chain())
    if precision == "fp16":
        model = in_fp16(model, ())
    if precision == "int8":
        model = to_int8(model, [IMAGES], CALIBRATION, for_tensorrt=True)
    options = EngineOptions(batch=(1, 2, 4), targets=("8.6",))
    plan, engine = build_engine(model.SerializeToString(), "tensorrt-rtx", SPEC, options)
    assert len(plan) > 1000
    assert engine.target == ("8.6",)
    assert engine.profile == ((1, 24, 24, 3), (2, 24, 24, 3), (4, 24, 24, 3))


def test_engines_travel_in_the_bundle(trained, tmp_path):
    options = ExportOptions("fp16", format="tensorrt-rtx", engine=EngineOptions(targets=("8.6", "8.9")))
    bundle = export(of_run(trained, None), options, tmp_path / "bundle")
    again = read_bundle(bundle.path)
    assert again.card.engine.library == "tensorrt-rtx"
    assert again.card.engine.target == ("8.6", "8.9")
    assert again.plan.stat().st_size > 10**6
    assert "model.plan" in (bundle.path / "SHA256SUMS").read_text()
    again.plan.write_bytes(again.plan.read_bytes()[:-1])
    with pytest.raises(VerificationError, match=r"model\.plan"):
        read_bundle(bundle.path)
    again.plan.unlink()
    with pytest.raises(InputError, match=r"model\.plan is missing"):
        read_bundle(bundle.path)


def test_what_an_engine_needs_is_said_in_one_line():
    model = graph(Chain()).SerializeToString()
    with pytest.raises(UsageError, match=r"needs the package tensorrt.*tensorrt-rtx"):
        build_engine(model, "tensorrt", SPEC, EngineOptions())
    with pytest.raises(UsageError, match=r"knows no compute capability 6\.1.*8\.6"):
        build_engine(model, "tensorrt-rtx", SPEC, EngineOptions(targets=("6.1",)))
    unsigned = to_int8(graph(Chain()), [IMAGES], CALIBRATION, for_tensorrt=False)
    with pytest.raises(InputError, match=r"can't take the graph: node \S+ \((De)?[qQ]uantizeLinear\)"):
        build_engine(unsigned.SerializeToString(), "tensorrt-rtx", SPEC, EngineOptions())


@pytest.mark.parametrize("text", ["8", "8:1:32", "0:1:2", "a:b:c", "1:2:3:4", ""])
def test_a_range_of_batches_is_checked(text):
    with pytest.raises(UsageError, match="--batch"):
        parse_batch(text)
    assert parse_batch("1:8:32") == (1, 8, 32)


def test_hard_inputs_are_prepared_as_any_image():
    assert hard_inputs(SPEC).ready[0].shape == (7, 24, 24, 3)
    shapes = [pixels.shape for pixels in hard_inputs(SegmentationInput()).ready]
    assert (1, 8, 8, 3) in shapes
    assert (1, 8, 1000, 3) in shapes
    assert all(side % 8 == 0 for shape in shapes for side in shape[1:3])


def test_weights_beyond_protobufs_limit_stand_in_their_own_file(tmp_path, monkeypatch):
    model = graph(Chain(widths=(3, 32, 32)))
    expected = run(model)
    monkeypatch.setattr("csg_export.onnx_graph.LARGEST_MESSAGE", 1000)
    files = files_of(model, "{}")
    assert set(files) == {"model.onnx", "model.onnx.data"}
    for name, content in files.items():
        (tmp_path / name).write_bytes(content)
    session = ort.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    np.testing.assert_array_equal(session.run(None, {"image": IMAGES})[0], expected)


def test_a_classifier_can_return_its_embedding(trained, tmp_path):
    source = of_run(trained, None)
    bundle = export(source, ExportOptions(embedding=True), tmp_path / "bundle")
    assert [o.name for o in bundle.card.outputs] == ["logits", "embedding"]
    session = ort.InferenceSession(bundle.model, providers=["CPUExecutionProvider"])
    images = np.random.default_rng(0).integers(0, 256, (2, 32, 32, 3), dtype=np.uint8)
    logits, embedding = session.run(["logits", "embedding"], {"image": images})
    with torch.inference_mode():
        maps = source.network.encoder(torch.from_numpy(images))
        np.testing.assert_allclose(embedding, source.network.embed(maps), atol=1e-3)
        np.testing.assert_allclose(logits, source.network.classify(maps), atol=1e-3)
    assert bundle.card.outputs[1].shape == (-1, embedding.shape[1])


def test_a_torchvision_classifier_is_exported_unmodified(tmp_path):
    import torchvision

    source = of_torchvision("resnet18", "none")
    bundle = export(source, ExportOptions(), tmp_path / "bundle")
    card = bundle.card
    assert (card.input.height, card.input.resize_shorter_side, len(card.classes)) == (224, 256, 1000)
    torch.manual_seed(0)
    model = torchvision.models.resnet18().eval()
    images = next(source.real.batches())[:2]
    expects = torchvision.transforms.functional.normalize(
        torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255, card.normalisation.mean, card.normalisation.std
    )
    with torch.inference_mode():
        expected = model(expects).numpy()
    got = ort.InferenceSession(bundle.model, providers=["CPUExecutionProvider"]).run(None, {"image": images})[0]
    np.testing.assert_allclose(got, expected, rtol=1e-3, atol=1e-3)
    with pytest.raises(UsageError, match="no classifier 'fasterrcnn_resnet50_fpn'"):
        of_torchvision("fasterrcnn_resnet50_fpn", "none")
