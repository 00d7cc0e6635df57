"""fp16, int8, bf16, engines: how they are made, on small networks, and that each bundle is what it says."""

import numpy as np
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto
from torch import nn

from csg.card import SegmentationInput
from csg.errors import UsageError
from csg_export.command import parse_batch
from csg_export.export import ExportOptions, export
from csg_export.fp16 import blocks_of, smallest, to_fp16
from csg_export.fp16_graph import rounded_to_fp16
from csg_export.onnx_graph import files_of
from csg_export.parity import of_network, of_openvino
from csg_export.parity_images import hard_inputs
from csg_export.sources import of_run, of_torchvision
from tests.helpers.small_networks import IMAGES, SPEC, Chain, graph, run


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


def test_bf16_is_close_and_says_what_computes_it(trained, tmp_path):
    card = export(of_run(trained, None), ExportOptions("bf16"), tmp_path / "bundle").card
    assert card.parity.stages[2].stage == "bf16, OpenVINO"
    assert "OpenVINO" in card.precision_note
    network = Chain()
    exact = of_openvino(graph(network).SerializeToString(), "f32")(IMAGES)[0]
    np.testing.assert_allclose(exact, of_network(network)(IMAGES)[0], rtol=1e-4, atol=1e-4)


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
