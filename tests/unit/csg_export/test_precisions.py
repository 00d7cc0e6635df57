"""The tables of precisions and formats."""

from dataclasses import replace

import numpy as np
import pytest

from csg.errors import UsageError
from csg_export.export import export
from csg_export.formats import FORMATS, ExportFormat, int8_dialect
from csg_export.int8 import ONNXRUNTIME_INT8, TENSORRT_INT8
from csg_export.options import ExportOptions
from csg_export.precisions import PRECISIONS, export_precision
from csg_export.runners import openvino_runner, torch_runner
from csg_export.sources import from_run
from tests.helpers.small_networks import IMAGES, Chain, graph


@pytest.mark.slow
def test_bf16_is_close_and_says_what_computes_it(exported):
    card = exported("bf16").card
    assert card.parity.stages[2].stage == "bf16"
    assert (card.runtime, card.compute_type) == ("openvino", "bf16")
    assert "OpenVINO" in card.precision_note
    network = Chain()
    exact = openvino_runner(graph(network), "fp32")(IMAGES).logits
    np.testing.assert_allclose(exact, torch_runner(network)(IMAGES).logits, rtol=1e-4, atol=1e-4)


@pytest.mark.slow
def test_every_format_states_its_int8_dialect(trained, tmp_path, monkeypatch):
    """A new format never takes another one's dialect by default."""
    assert {name: int8_dialect(name) for name in FORMATS} == {
        "onnx": ONNXRUNTIME_INT8,
        "tensorrt": TENSORRT_INT8,
        "tensorrt-rtx": TENSORRT_INT8,
    }
    with pytest.raises(TypeError, match="int8"):
        ExportFormat(package=None)
    monkeypatch.setitem(FORMATS, "new", ExportFormat(int8=None, package=None))
    monkeypatch.setitem(PRECISIONS, "int8", replace(PRECISIONS["int8"], formats=("onnx", "new")))
    with pytest.raises(UsageError, match="int8 is not available for --format new"):
        export(from_run(trained), ExportOptions("int8", format="new"), tmp_path / "bundle")
    with pytest.raises(UsageError, match="unknown format 'newer'"):
        int8_dialect("newer")


def test_a_precision_is_refused_in_a_format_that_does_not_have_it():
    with pytest.raises(UsageError, match=r"bf16 is not available for --format tensorrt-rtx.*fp32, fp16, int8"):
        export_precision(ExportOptions("bf16", format="tensorrt-rtx"))
    with pytest.raises(UsageError, match=r"unknown precision 'fp8'.*fp32, fp16, bf16, int8"):
        export_precision(ExportOptions("fp8"))


def test_a_given_tolerance_replaces_the_rows_difference_alone():
    row = export_precision(ExportOptions("int8", tolerance=0.5))
    assert (row.tolerance.difference, row.tolerance.total_agreement) == (0.5, 0.9)
    assert row.hard_tolerance == PRECISIONS["int8"].hard_tolerance
