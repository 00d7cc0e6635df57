"""A new precision, by the steps of docs/how-to/precision.md."""

import importlib.util

import numpy as np
import onnx
import pytest

from csg.bundle import read_bundle
from csg_export import precisions
from csg_export.precisions import PRECISIONS
from csg_export.runners import onnx_runner, torch_runner
from csg_train.training.student import load_student
from tests.helpers.cli import csg, refused
from tests.helpers.pages import blocks, commands

PAGE = "how-to/precision.md"


@pytest.fixture
def added(tmp_path, monkeypatch):
    """Steps 1 and 2: the conversion in a module, the row in the table; the row's name."""
    module_text, row = blocks(PAGE, "python")
    file = tmp_path / "fp16_weights.py"
    file.write_text(module_text)
    spec = importlib.util.spec_from_file_location("fp16_weights", file)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    ((name, value),) = eval(f"{{{row}}}", vars(precisions) | vars(module)).items()
    monkeypatch.setitem(PRECISIONS, name, value)
    return name


@pytest.mark.slow
def test_a_new_row_is_exported_compared_and_served(added, trained, tmp_path):
    """Step 3."""
    export, inspect = commands(PAGE)
    done = csg(*[str(trained.path) if word == "RUN" else word for word in export], "--out", "bundle")
    assert done.returncode == 0, done.stderr
    bundle = read_bundle(tmp_path / "bundle")
    card = bundle.card
    assert (card.precision, card.runtime, card.compute_type) == (added, "onnxruntime", "fp32")
    assert [stage.stage for stage in card.parity.stages] == ["stripped student", "onnx", added] * 2
    assert card.parity.agreement > 0.99
    deployed = csg("deploy", "bundle", "--backend", "python")
    assert deployed.returncode == 0, deployed.stderr
    assert "weights fp16" in csg(*[str(bundle.path) if word == "BUNDLE" else word for word in inspect]).stdout
    images = np.random.default_rng(0).integers(0, 256, (4, 32, 32, 3), dtype=np.uint8)
    model = onnx.load(bundle.model)
    expected = torch_runner(load_student(trained))(images).logits
    np.testing.assert_allclose(onnx_runner(model)(images).logits, expected, atol=0.02 * np.abs(expected).max())
    fp16 = [weight for weight in model.graph.initializer if weight.data_type == onnx.TensorProto.FLOAT16]
    assert sum(np.prod(weight.dims) for weight in fp16) > 2e6


@pytest.mark.slow
def test_a_new_row_that_is_outside_its_tolerance_is_not_written(added, trained, tmp_path):
    done = csg("export", trained.path, "--precision", added, "--tolerance", "1e-9", "--out", "bundle")
    refused(done, 5, f"{added} differs from PyTorch")
    assert not (tmp_path / "bundle").exists()
