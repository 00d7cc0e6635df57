"""Segmenters exported: label maps in every precision, engines, and what is refused."""

from dataclasses import replace

import numpy as np
import onnxruntime as ort
import pytest
import torch

from csg.errors import UsageError
from csg_export.export import export
from csg_export.options import ExportOptions
from csg_export.precisions import PRECISIONS
from csg_export.sources import from_run
from csg_train.training.student import load_student

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("size", [None, (64, 128)])
def test_an_exported_label_map_is_the_students(segmented, tmp_path, size):
    """On any size the free graph takes, and on its own the fixed one; logits only where asked for."""
    bundle = export(from_run(segmented, size), ExportOptions(logits=size is not None), tmp_path / "bundle")
    session = ort.InferenceSession(bundle.model, providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == (["logits", "label_map"] if size else ["label_map"])
    student, rng = load_student(segmented), np.random.default_rng(0)
    for height, width in [size] if size else [(64, 64), (72, 136), (200, 96)]:
        images = rng.integers(0, 256, (3, height, width, 3), dtype=np.uint8)
        (label_map,) = session.run(["label_map"], {"image": images})
        with torch.inference_mode():
            logits = student(torch.from_numpy(images))
        assert label_map.dtype == np.uint8
        assert label_map.shape == (3, height, width)
        assert (label_map == logits.argmax(1).numpy()).mean() > 0.999
    assert bundle.card.input.height == (size and size[0])
    assert bundle.card.parity.agreement > 0.99


def test_a_segmenter_in_int8_is_calibrated_and_judged_on_scenes(segmented, tmp_path, monkeypatch):
    """Scenes of free size; pixels that the student decides clearly come out the same."""
    row = replace(PRECISIONS["int8"], max_score_loss=0.05)  # the student has hardly learnt anything
    monkeypatch.setitem(PRECISIONS, "int8", row)
    bundle = export(from_run(segmented), ExportOptions("int8"), tmp_path / "bundle")
    shipped, hard = bundle.card.parity.stages[-1], [s for s in bundle.card.parity.stages if s.source == "hard inputs"]
    assert shipped.agreement > 0.9
    assert len(hard) == len(bundle.card.parity.stages) / 2
    assert [e.of for e in bundle.card.evaluations] == ["student", "graph"]
    assert bundle.card.calibration.images == 64
    session = ort.InferenceSession(bundle.model, providers=["CPUExecutionProvider"])
    (label_map,) = session.run(None, {"image": np.zeros((2, 64, 128, 3), np.uint8)})
    assert (label_map.dtype, label_map.shape) == (np.uint8, (2, 64, 128))


def test_a_segmenter_is_refused_what_is_a_classifiers(trained, tmp_path):
    with pytest.raises(UsageError, match="--size"):
        from_run(trained, (64, 64))
