"""The upsampling of a segmenter's logits, exported: the same as PyTorch's, in every precision and at every size."""

import numpy as np
import onnx
import pytest

from csg.card import SegmentationInput
from csg_export.export import export
from csg_export.onnx_graph import strip, to_onnx
from csg_export.options import ExportOptions
from csg_export.precisions import PRECISIONS
from csg_export.runners import onnx_runner, openvino_runner, torch_runner
from csg_export.tensorrt import EngineOptions
from tests.helpers.small_networks import dense
from tests.helpers.small_source import SIDE, segmenter

SIZES = [(8, 8), (8, 64), (64, 64), (72, 136), (200, 96), (256, 512)]


def resizes(model):
    """How each Resize of a graph maps coordinates."""
    attributes = [attribute for node in model.graph.node if node.op_type == "Resize" for attribute in node.attribute]
    return [a.s.decode() for a in attributes if a.name == "coordinate_transformation_mode"]


def difference(run, network, height=72, width=136):
    """Largest difference of a logit from PyTorch's on two images of noise, as a share of the largest logit."""
    images = np.random.default_rng(1).integers(0, 256, (2, height, width, 3), np.uint8)
    wanted = torch_runner(network)(images).logits
    return np.abs(run(images).logits - wanted).max() / np.abs(wanted).max()


@pytest.mark.parametrize(("align_corners", "mode"), [(True, "align_corners"), (False, "half_pixel")])
def test_the_graph_upsamples_as_pytorch_at_every_size(align_corners, mode):
    network, spec = dense(align_corners), segmenter().spec
    model = to_onnx(strip(network), spec)
    assert resizes(model) == [mode]
    run = onnx_runner(model)
    assert all(difference(run, network, *size) < 2e-5 for size in SIZES), "fp32's tolerance is 1e-4"


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_other_precisions_keep_it(precision, tmp_path):
    network = dense(True)
    bundle = export(segmenter(network=network), ExportOptions(precision, logits=True), tmp_path / "bundle")
    model = onnx.load(bundle.model)
    assert resizes(model) == ["align_corners"]
    assert difference(onnx_runner(model), network) < PRECISIONS[precision].tolerance.difference


def test_openvino_computes_it_in_bf16():
    network = dense(True)
    model = to_onnx(strip(network), segmenter().spec)
    assert difference(openvino_runner(model, "bf16"), network) < 0.02


@pytest.mark.slow
@pytest.mark.parametrize("size", [{}, {"height": SIDE, "width": SIDE}])
def test_tensorrt_rtx_builds_an_engine_of_it(tmp_path, size):
    options = ExportOptions("fp16", format="tensorrt-rtx", engine=EngineOptions(compute_capabilities=("8.6",)))
    bundle = export(segmenter(network=dense(True), spec=SegmentationInput(**size)), options, tmp_path / "bundle")
    assert resizes(onnx.load(bundle.model)) == ["align_corners"]
    assert bundle.plan.stat().st_size > 1000
    sides = [(SIDE, SIDE)] * 3 if size else [(8, 8), (512, 1024), (1024, 2048)]
    assert bundle.card.engine.profile == tuple((b, *hw, 3) for b, hw in zip((1, 1, 4), sides, strict=True))
