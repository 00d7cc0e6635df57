"""One of timm's networks over the whole road, by the benchmark that takes ten: a segmenter, patches of 16 pixels."""

import pytest

from benchmarks.training.encoder_road import cell, draw_images, row

pytestmark = [pytest.mark.server, pytest.mark.slow]


def test_a_timm_encoder_is_trained_exported_served_and_evaluated(tmp_path):
    pytest.importorskip("timm", reason="needs the extra timm")
    draw_images(tmp_path)
    found = cell(tmp_path, "test_vit", "seg", "fp16")
    assert "failed" not in found, found
    assert found["mb"] > 0
    assert 0 <= found["score"] <= 1


def test_a_cell_that_fails_says_where(tmp_path):
    found = cell(tmp_path, "no_such_network", "cls", "fp32")
    assert found["failed"].startswith("train: ")
    assert "no_such_network" in found["failed"]
    assert "failed" in row("no_such_network cls fp32", found)
