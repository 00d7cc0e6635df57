"""Export against PyTorch: stripped, clean, the same numbers."""

import json
import re

import numpy as np
import onnx
import onnxruntime as ort
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, numpy_helper
from torch import nn

from csg.errors import InputError, VerificationError
from csg_export.export import export
from csg_export.fp16_graph import in_fp16
from csg_export.onnx_graph import CARD_KEY, to_onnx
from csg_export.options import ExportOptions
from csg_export.sources import from_run
from csg_train.training.run_folder import Run
from csg_train.training.student import load_student
from tests.helpers.small_source import classifier

SLOW_FP16 = pytest.param("fp16", marks=pytest.mark.slow)


class Small(nn.Module):
    """Random small networks with the parts of a classifier."""

    def __init__(self, widths, classes):
        super().__init__()
        pairs = zip([3, *widths], widths, strict=False)
        self.body = nn.Sequential(
            *(layer for a, b in pairs for layer in (nn.Conv2d(a, b, 3, 2, 1), nn.BatchNorm2d(b), nn.ReLU6()))
        )
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, images):
        x = (images.permute(0, 3, 1, 2).float() - 120) / 60
        return self.head(self.body(x).mean((2, 3)))


def run_onnx(model, images):
    content = model if isinstance(model, bytes) else model.SerializeToString()
    return ort.InferenceSession(content, providers=["CPUExecutionProvider"]).run(None, {"image": images})[0]


@pytest.mark.slow
@settings(max_examples=5)
@given(st.lists(st.integers(1, 9), min_size=1, max_size=3), st.integers(2, 6), st.integers(8, 33), st.integers(1, 5))
def test_fp32_and_fp16_graphs_follow_pytorch(widths, classes, side, batch):
    from csg.card import ClassificationInput

    torch.manual_seed(0)
    network = Small(widths, classes).eval()
    images = np.random.default_rng(side).integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = network(torch.from_numpy(images)).numpy()
    model = to_onnx(network, ClassificationInput(height=side, width=side, resize_shorter_side=side))
    half = in_fp16(model, ())
    np.testing.assert_allclose(run_onnx(model, images), expected, rtol=1e-4, atol=1e-5)
    got = run_onnx(half, images)
    assert got.dtype == np.float32
    np.testing.assert_allclose(got, expected, rtol=2e-2, atol=2e-2)
    weights = [i for i in half.graph.initializer if len(i.dims) == 4]
    assert weights
    assert all(i.data_type == TensorProto.FLOAT16 for i in weights)
    assert sum(n.op_type == "BatchNormalization" for n in half.graph.node) == 0


@pytest.mark.parametrize("precision", ["fp32", SLOW_FP16])
def test_the_bundle_holds_the_student_and_nothing_else(trained, exported, precision):
    bundle = exported(precision)
    model = onnx.load(bundle.model)
    arrays = [numpy_helper.to_array(i).astype(np.float32) for i in model.graph.initializer]
    student = load_student(trained)
    held = sum(a.size for a in arrays if a.dtype == np.float32)
    parameters = sum(p.numel() for p in student.parameters())
    assert held <= parameters * 1.02, "more numbers in the graph than in the student"
    shapes = {a.shape for a in arrays}
    for forbidden in ((96, 96), (128, 96), (1280, 1280), (128, 1280), (64, 128)):  # projection heads, queue
        assert forbidden not in shapes
        assert forbidden[::-1] not in shapes
    head = student.head[2].weight.detach().numpy()
    assert any(a.shape == head.shape and np.allclose(a, head, atol=1e-2) for a in arrays)


@pytest.mark.parametrize("precision", ["fp32", SLOW_FP16])
def test_the_exported_graph_answers_as_pytorch_does(trained, exported, precision):
    bundle = exported(precision)
    card = bundle.card
    images = np.random.default_rng(0).integers(0, 256, (5, card.input.height, card.input.width, 3), dtype=np.uint8)
    with torch.inference_mode():
        expected = load_student(trained)(torch.from_numpy(images)).numpy()
    got = run_onnx(bundle.model.read_bytes(), images)
    assert np.abs(got - expected).max() <= card.parity.tolerance
    assert card.parity.images > 0
    assert card.parity.agreement >= 0.97
    assert card.precision == precision
    carried = {p.key: p.value for p in onnx.load(bundle.model).metadata_props}[CARD_KEY]
    assert json.loads(carried) == json.loads(card.to_json())
    for size in (1, 7):
        assert run_onnx(bundle.model.read_bytes(), np.zeros((size, *images.shape[1:]), np.uint8)).shape[0] == size


@pytest.mark.slow
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_two_exports_of_a_run_are_the_same_bytes(trained, exported, tmp_path, precision):
    again = export(from_run(trained), ExportOptions(precision), tmp_path / "again")
    assert again.model.read_bytes() == exported(precision).model.read_bytes()


@pytest.mark.parametrize("precision", ["fp32", SLOW_FP16, pytest.param("int8", marks=pytest.mark.slow)])
def test_the_graph_is_clean(exported, precision):
    """No float64, nothing of training, every node named once, nothing unused, no data outside."""
    model = onnx.load(exported(precision).model)
    kinds = {i.data_type for i in model.graph.initializer} | {
        v.type.tensor_type.elem_type for v in onnx.shape_inference.infer_shapes(model).graph.value_info
    }
    assert TensorProto.DOUBLE not in kinds
    assert not {n.op_type for n in model.graph.node} & {"Dropout", "BatchNormalization", "Identity", "Shape"}
    names = [n.name for n in model.graph.node]
    assert len(set(names)) == len(names)
    assert all(names)
    used = {name for n in model.graph.node for name in n.input} | {o.name for o in model.graph.output}
    assert {i.name for i in model.graph.initializer} <= used
    assert {name for n in model.graph.node for name in n.output} <= used
    assert [i.name for i in model.graph.input] == ["image"]
    assert [o.name for o in model.graph.output] == ["logits"]
    assert {i.domain for i in model.opset_import} == {""}


def test_no_path_of_the_exporting_machine_is_inside(exported):
    bundle = exported("fp32")
    assert str(bundle.path.parent).encode() not in bundle.model.read_bytes()
    assert not re.search(rb"\.py\b", bundle.model.read_bytes())  # the address of the weights has .pytorch.org


@pytest.mark.parametrize(
    ("precision", "tolerance", "message"), [("fp16", 1e-12, "already"), ("int8", 1e-12, "int8 differs from PyTorch")]
)
def test_a_failed_parity_leaves_no_bundle(tmp_path, precision, tolerance, message):
    with pytest.raises(VerificationError, match=message):
        export(classifier(), ExportOptions(precision, tolerance=tolerance), tmp_path / "bundle")
    assert not (tmp_path / "bundle").exists()


def test_half_written_and_wrong_runs_are_refused(trained, tmp_path):
    import shutil

    copy = Run(shutil.copytree(trained.path, tmp_path / "copy"))
    (copy.path / "student.safetensors").write_bytes((copy.path / "student.safetensors").read_bytes()[:1000])
    with pytest.raises(InputError, match="damaged"):
        load_student(copy)
    copy.write_student({"head.0.weight": torch.zeros(2)})
    with pytest.raises(InputError, match="does not fit a"):
        load_student(copy)
    (copy.path / "result.json").unlink()
    with pytest.raises(InputError, match="not finished"):
        load_student(copy)


@pytest.mark.parametrize("precision", ["fp32", SLOW_FP16])
def test_no_request_pays_for_a_batch_norm(exported, precision, capfd):
    """Norms are folded into the weights: no norm, no arithmetic on weights alone, nothing that ORT warns of."""
    bundle = exported(precision)
    model = onnx.load(bundle.model)
    constants = {tensor.name for tensor in model.graph.initializer}
    assert not any(node.op_type in ("BatchNormalization", "Sqrt", "Reciprocal") for node in model.graph.node)
    on_weights = [n for n in model.graph.node if n.input and all(name in constants for name in n.input if name)]
    assert not [node.op_type for node in on_weights if node.op_type not in ("Constant", "Cast")]
    capfd.readouterr()
    ort.InferenceSession(bundle.model, providers=["CPUExecutionProvider"])
    assert "constant" not in capfd.readouterr().err
