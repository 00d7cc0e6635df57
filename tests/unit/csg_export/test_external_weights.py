"""Weights beyond protobuf's limit of 2 GB: in files, from the network to the bundle."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto

from csg.bundle import read_bundle
from csg.errors import InputError
from csg_export.export import export
from csg_export.options import ExportOptions
from tests.helpers.cli import csg
from tests.helpers.small_networks import IMAGES, Chain
from tests.helpers.small_source import classifier, segmenter


def answers(bundle, images=IMAGES):
    session = ort.InferenceSession(bundle.model, providers=["CPUExecutionProvider"])
    return session.run(None, {"image": images})


@pytest.fixture
def small_limit(monkeypatch):
    monkeypatch.setattr("csg_export.external_weights.MAX_WEIGHT_BYTES", 1000)


WIDE = (3, 32, 32, 5)


@pytest.mark.parametrize(
    ("precision", "loud"), [("fp32", None), ("fp16", None), pytest.param("fp16", 0, marks=pytest.mark.slow)]
)
def test_weights_in_a_file_give_the_same_answers(tmp_path, monkeypatch, precision, loud):
    """Also where some blocks of an fp16 graph stay fp32."""
    source = classifier(Chain(loud, widths=WIDE))
    whole = export(source, ExportOptions(precision), tmp_path / "whole")
    monkeypatch.setattr("csg_export.external_weights.MAX_WEIGHT_BYTES", 1000)
    bundle = export(source, ExportOptions(precision), tmp_path / "bundle")
    assert [file.name for file in bundle.graph_files] == ["model.onnx", "model.onnx.data"]
    assert sorted(file.name for file in tmp_path.iterdir()) == ["bundle", "whole"], "no working folder is left"
    np.testing.assert_array_equal(answers(read_bundle(bundle.path)), answers(whole))
    assert bundle.card.precision_note == whole.card.precision_note
    again = export(source, ExportOptions(precision), tmp_path / "again")
    assert [file.read_bytes() for file in again.graph_files] == [file.read_bytes() for file in bundle.graph_files]
    assert str(tmp_path).encode() not in bundle.model.read_bytes()


def test_a_bundle_with_weights_in_a_file_is_shown_and_deployed(tmp_path, small_limit):
    bundle = export(classifier(Chain(widths=WIDE)), ExportOptions(), tmp_path / "bundle")
    shown = csg("export", "inspect", bundle.path, "--json")
    assert shown.returncode == 0, shown.stderr
    assert json.loads(shown.stdout)["graph"]["numbers"]["float"] > 1000
    deployed = csg("deploy", bundle.path, "--no-encoded")
    assert deployed.returncode == 0, deployed.stderr
    assert (tmp_path / "model_repository" / "small" / "1" / "model.onnx.data").is_file()


def test_a_segmenter_with_weights_in_a_file_has_no_logits(tmp_path, monkeypatch):
    monkeypatch.setattr("csg_export.external_weights.MAX_WEIGHT_BYTES", 100)
    bundle = export(segmenter(), ExportOptions("fp16"), tmp_path / "bundle")
    assert answers(bundle)[0].dtype == np.uint8


def test_int8_refuses_weights_in_a_file(tmp_path, small_limit):
    with pytest.raises(InputError, match="int8 is not available for weights beyond 2 GB; use --precision fp16"):
        export(classifier(Chain(widths=WIDE)), ExportOptions("int8"), tmp_path / "bundle")
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
@pytest.mark.parametrize(("precision", "width"), [("fp32", 23_740), ("fp16", 9_000)], ids=["fp32", "fp16"])
def test_weights_in_a_file_are_exported_in_the_memory_of_three_copies(tmp_path, precision, width):
    """fp32 with 2.1 GiB, beyond protobuf's limit; what fp16 adds shows with less, and fits on a small disk."""
    if shutil.disk_usage(tmp_path).free < 4 * 4 * width**2:
        pytest.skip("needs a disk with room for four copies of the weights")
    root = Path(__file__).parents[3]
    command = [sys.executable, "-m", "tests.helpers.large_export", precision, str(width), str(tmp_path / "bundle")]
    done = subprocess.run(command, cwd=root, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    used = json.loads(done.stdout)
    assert used["weights"] >= 4 * width**2
    assert used["peak"] < 3 * used["weights"]
    bundle = read_bundle(tmp_path / "bundle")
    assert bundle.card.parity.agreement == 1
    assert bundle.graph_files[1].stat().st_size >= (4 if precision == "fp32" else 2) * width**2
    kinds = {weight.data_type for weight in onnx.load(bundle.model, load_external_data=False).graph.initializer}
    assert (TensorProto.FLOAT16 in kinds) == (precision == "fp16")
    assert csg("export", "inspect", bundle.path).returncode == 0
    assert np.isfinite(answers(bundle)[0]).all()
