"""An fp16 bundle on a CPU: the script of the Python backend computes it in fp32, with the weights that fp16 left."""

import sys

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, numpy_helper

from csg_export.block_search import blocks_of
from csg_export.export import export
from csg_export.fp16_graph import in_fp16
from csg_export.onnx_graph import to_onnx, without_logits
from csg_export.options import ExportOptions
from csg_serve.python_backend import sessions
from csg_serve.python_backend.golden import GOLDEN_ARRAYS, check_answers, read_golden
from csg_serve.python_backend.scheduling import SessionOptions
from csg_serve.python_backend.widening import widen
from tests.helpers.served import deploy
from tests.helpers.small_networks import IMAGES, Chain, graph
from tests.helpers.small_source import SmallSegmenter, classifier, segmenter

CPU = {"model_instance_kind": "CPU", "model_instance_device_id": "0"}


@pytest.fixture(scope="module")
def chain():
    """A classifier in fp32."""
    return graph(Chain())


@pytest.fixture(scope="module")
def scenes():
    """A segmenter in fp32."""
    return to_onnx(SmallSegmenter().eval(), segmenter().spec)


def save(model, folder, **options):
    onnx.save_model(model, folder / "model.onnx", **options)
    return folder / "model.onnx"


def compute(model, images, *names):
    session = ort.InferenceSession(model, providers=["CPUExecutionProvider"])
    return session.run(names or None, {"image": images})


def rounded(exact):
    """The fp32 graph with the values that fp16 leaves of its weights and constants."""
    model = onnx.ModelProto()
    model.CopyFrom(exact)
    for tensor in model.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            values = numpy_helper.to_array(tensor).astype(np.float16).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))
    return model


def float_casts(model):
    """The casts that a graph holds, but for the one of the pixels and those to the label map."""
    floats = (TensorProto.FLOAT16, TensorProto.FLOAT)
    casts = [node for node in model.graph.node if node.op_type == "Cast"]
    return [n.name for n in casts if any(a.name == "to" and a.i in floats for a in n.attribute)][1:]


@pytest.mark.parametrize("float32_blocks", [(), (1, 2), (0,)], ids=["none", "two inside", "the first"])
def test_a_widened_graph_gives_exactly_the_answers_of_fp32_arithmetic(chain, tmp_path, float32_blocks):
    blocks = blocks_of(chain)
    half = in_fp16(chain, {name for index in float32_blocks for name in blocks[index]})
    wide = onnx.load_from_string(widen(save(half, tmp_path)).model)
    onnx.checker.check_model(wide, full_check=True)
    assert (wide.graph.input, wide.graph.output) == (half.graph.input, half.graph.output)
    (got,) = compute(wide.SerializeToString(), IMAGES)
    if not float32_blocks:
        np.testing.assert_array_equal(got, compute(rounded(chain).SerializeToString(), IMAGES)[0])
    np.testing.assert_allclose(got, compute(half.SerializeToString(), IMAGES)[0], rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize("network", ["chain", "scenes"])
def test_no_cast_is_left_between_layers(request, tmp_path, network):
    half = in_fp16(request.getfixturevalue(network), ())
    half = without_logits(half) if network == "scenes" else half
    assert float_casts(half)
    assert not float_casts(onnx.load_from_string(widen(save(half, tmp_path)).model))
    settings = ort.SessionOptions()
    settings.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    ort.InferenceSession(widen(tmp_path / "model.onnx").model, settings, providers=["CPUExecutionProvider"])
    optimised = onnx.load(tmp_path / "optimised.onnx")
    assert not float_casts(optimised)
    assert "Identity" not in {node.op_type for node in optimised.graph.node}


def test_a_segmenter_without_logits_has_the_same_label_map(scenes, tmp_path):
    slim = without_logits(in_fp16(scenes, ()))
    images = np.random.default_rng(0).integers(0, 256, (2, 64, 72, 3), np.uint8)
    (got,) = compute(widen(save(slim, tmp_path)).model, images)
    (expected,) = compute(rounded(scenes).SerializeToString(), images, "label_map")
    assert got.dtype == np.uint8
    np.testing.assert_array_equal(got, expected)


def test_weights_in_a_file_of_their_own_are_widened_too(chain, tmp_path):
    """As those of graphs beyond 2 GB; some stay fp32."""
    half = in_fp16(chain, set(blocks_of(chain)[2]))
    (plain,) = compute(half.SerializeToString(), IMAGES)
    outside = {"save_as_external_data": True, "location": "model.onnx.data", "size_threshold": 100}
    wide = widen(save(half, tmp_path, **outside))
    assert {values.dtype for values in wide.weights.values()} == {np.dtype(np.float32)}
    run = open_session(tmp_path / "model.onnx", "fp16")
    (tmp_path / "model.onnx.data").unlink()  # all is in memory
    for _ in range(3):
        np.testing.assert_allclose(run(IMAGES)[0], plain, rtol=1e-3, atol=1e-3)


def open_session(path, compute_type, outputs=("logits",), log=print):
    described = sessions.Graph(path, "image", list(outputs))
    opener, on_cpu = sessions.session_opener({"compute_type": compute_type}, described, CPU, log)
    assert on_cpu
    return opener(SessionOptions(threads=1))


@pytest.mark.slow
@pytest.mark.parametrize("source", [classifier, segmenter])
def test_the_golden_answers_of_an_fp16_bundle_are_met(tmp_path, source):
    bundle = export(source(), ExportOptions("fp16"), tmp_path / "bundle")
    deploy(bundle.path, tmp_path / "repository", "--no-encoded", "--device", "cpu")
    version = tmp_path / "repository" / bundle.card.name / "1"
    lines, golden = [], read_golden(version / GOLDEN_ARRAYS)
    run = open_session(version / "model.onnx", "fp16", [bundle.card.outputs[0].name], lines.append)
    check_answers(run, golden, 8)
    assert len(golden) == 3
    assert lines == ["fp16 is computed in fp32 on this CPU"]


def test_without_the_package_onnx_it_is_computed_as_it_is(chain, tmp_path, monkeypatch):
    path, lines = save(in_fp16(chain, ()), tmp_path), []
    expected = open_session(path, "fp32")(IMAGES)[0]
    monkeypatch.setitem(sys.modules, "onnx", None)
    np.testing.assert_array_equal(open_session(path, "fp16", log=lines.append)(IMAGES)[0], expected)
    assert "no package onnx" in lines[0]


def test_on_a_gpu_it_stays_fp16(chain, tmp_path, monkeypatch):
    """Here the GPU is a session that says which file it was given."""
    given = []

    class Library:
        SessionOptions = ort.SessionOptions

        @staticmethod
        def get_available_providers():
            return ["CUDAExecutionProvider"]

        @staticmethod
        def preload_dlls():
            pass

        @staticmethod
        def InferenceSession(model, settings, providers):
            given.append((model, providers[0][0]))

    monkeypatch.setitem(sys.modules, "onnxruntime", Library)
    monkeypatch.setattr(sessions, "has_gpu", lambda: True)
    path = save(in_fp16(chain, ()), tmp_path)
    on_gpu = {"model_instance_kind": "GPU", "model_instance_device_id": "0"}
    described = sessions.Graph(path, "image", ["logits"])
    opener, on_cpu = sessions.session_opener({"compute_type": "fp16"}, described, on_gpu, print)
    opener(SessionOptions(threads=1))
    assert (on_cpu, given) == (False, [(path, "CUDAExecutionProvider")])
