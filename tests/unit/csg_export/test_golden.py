"""Every export carries golden answers of PyTorch's, which its own graph meets and a broken one does not."""

import numpy as np
import onnxruntime
import pytest
import torch

from csg.bundle import read_bundle
from csg.golden import golden_pixels
from csg_export.export import export
from csg_export.options import ExportOptions
from tests.helpers.small_source import classifier, segmenter

CASES = [(classifier, name) for name in ("fp32", "fp16", "int8", "bf16")] + [(segmenter, "fp32"), (segmenter, "fp16")]


@pytest.mark.parametrize(("make", "precision"), CASES)
def test_the_exported_graph_meets_its_golden_answers(tmp_path, make, precision):
    source = make()
    bundle = read_bundle(export(source, ExportOptions(precision), tmp_path / "bundle").path)
    session = onnxruntime.InferenceSession(bundle.model)
    for answer in bundle.golden.answers:
        pixels, _ = golden_pixels(answer, bundle.card)
        with torch.no_grad():
            exact = source.network(torch.from_numpy(pixels[None]))[0].numpy()
        found = session.run(None, {"image": pixels[None]})[0][0]

        np.testing.assert_allclose(answer.expected, exact if exact.ndim == 1 else exact.argmax(0), rtol=1e-6, atol=1e-7)
        assert answer.difference(found) is None
        assert answer.difference(np.full_like(found, np.nan) if found.ndim == 1 else (found + 1) % 3)


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_answers_for_black_images_are_not_the_golden_answers(tmp_path, precision):
    bundle = export(classifier(), ExportOptions(precision), tmp_path / "bundle")
    session = onnxruntime.InferenceSession(bundle.model)
    black = session.run(None, {"image": np.zeros((1, 24, 24, 3), np.uint8)})[0][0]

    assert any(answer.difference(black) for answer in bundle.golden.answers)
