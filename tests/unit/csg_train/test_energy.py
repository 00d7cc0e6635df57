"""Hyperspherical energy against two plain loops, and the figures that go with it."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from csg.metrics import classification_scores
from csg_train import energy as module
from csg_train.compare.figures import Panel, angles, circle_figure, circular_density, confusion_figure
from csg_train.energy import hyperspherical_energy
from csg_train.pictures.plots import save_figure


def slow_energy(embeddings):
    unit = [row / np.linalg.norm(row) for row in embeddings.astype(float)]
    sums = [0.0, 0.0, 0.0]
    for i, a in enumerate(unit):
        for j, b in enumerate(unit):
            if i != j:
                z = max(float(np.linalg.norm(a - b)), 1e-4)
                for s in range(3):
                    sums[s] += math.log(1 / z) if s == 0 else z**-s
    return [total / (len(unit) * (len(unit) - 1)) for total in sums]


@given(st.integers(2, 12), st.integers(2, 6), st.integers(0, 2**16), st.sampled_from([1, 3, 1024]))
def test_energy_is_the_mean_over_pairs_whatever_the_block(count, width, seed, block):
    embeddings = np.random.default_rng(seed).normal(size=(count, width)).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "BLOCK", block)
        found = hyperspherical_energy(embeddings)
    np.testing.assert_allclose([found.E_0, found.E_1, found.E_2], slow_energy(embeddings), rtol=1e-5, atol=1e-6)


def test_duplicates_are_counted_and_finite():
    embeddings = np.array([[1, 0], [2, 0], [0, 1]], np.float32)
    found = hyperspherical_energy(embeddings)
    assert found.clamped == 1
    np.testing.assert_allclose([found.E_0, found.E_1, found.E_2], slow_energy(embeddings), rtol=1e-6)
    assert hyperspherical_energy(embeddings[:1]) is None


def test_many_embeddings_are_sampled_and_it_says_so(monkeypatch):
    monkeypatch.setattr(module, "EXACT_UP_TO", 50)
    embeddings = np.random.default_rng(0).normal(size=(200, 8)).astype(np.float32)
    found, again = hyperspherical_energy(embeddings), hyperspherical_energy(embeddings)
    assert found == again
    assert (found.sampled, found.embeddings) == (True, 50)
    monkeypatch.setattr(module, "EXACT_UP_TO", 200)
    exact = hyperspherical_energy(embeddings)
    assert not exact.sampled
    assert pytest.approx(exact.E_1, rel=0.05) == found.E_1


def test_spread_embeddings_have_less_energy_than_crowded_ones():
    generator = np.random.default_rng(0)
    spread = generator.normal(size=(100, 16))
    crowded = spread + 5
    for s in ("E_0", "E_1", "E_2"):
        assert getattr(hyperspherical_energy(spread), s) < getattr(hyperspherical_energy(crowded), s)


def test_density_on_the_circle_integrates_to_one_and_peaks_at_the_points():
    around = np.linspace(-np.pi, np.pi, 721)
    density = circular_density(np.array([0.5, 0.5, -2.0]), around)
    assert density[:-1].mean() * 2 * np.pi == pytest.approx(1, abs=1e-3)
    assert around[density.argmax()] == pytest.approx(0.5, abs=0.01)


def test_a_panel_shows_every_embedding_and_every_class(tmp_path):
    generator = np.random.default_rng(0)
    panels = []
    for number in range(3):
        true, predicted = generator.integers(0, 4, (2, 50))
        places, confusion = angles(generator.normal(size=(50, 8))), classification_scores(true, predicted, 4).confusion
        panels.append(Panel(f"system {number}", 0.25, places, true, confusion, (0.125, 1.5, 2.25)))
    circle, confusion = circle_figure(panels, "abcd"), confusion_figure(panels, "abcd")
    for panel, on_circle, matrix in zip(panels, circle.axes, confusion.axes, strict=False):
        assert on_circle.get_title() == panel.name
        assert len(on_circle.collections[0].get_offsets()) == 50
        assert "$E_1$ 1.500" in on_circle.texts[0].get_text()
        shares = panel.confusion / panel.confusion.sum(1, keepdims=True)
        np.testing.assert_allclose(matrix.images[0].get_array(), shares)
    files = [tmp_path / name for name in ("one.png", "two.png")]
    for file in files:
        save_figure(circle_figure(panels, "abcd"), file)
    assert files[0].read_bytes() == files[1].read_bytes()


def test_crowded_embeddings_crowd_on_the_circle():
    generator = np.random.default_rng(0)
    spread = generator.normal(size=(200, 16))
    assert angles(spread + 10).std() < angles(spread).std() / 3
    assert angles(spread + 10).mean() == pytest.approx(np.pi / 2, abs=0.05)
