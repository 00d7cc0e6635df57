"""The intervals of a comparison contain the truth as often as they say, for few seeds too, and are paired."""

import numpy as np
import pytest

from csg_train.compare.intervals import Counts, estimate


def two_systems(rng, seeds, spread, images=150, classes=4):
    """Runs of two systems that are equally good: only images, seeds and chance make their predictions differ."""
    labels = rng.integers(0, classes, images)
    whole = np.eye(classes, dtype=int)[labels]
    easy = rng.normal(0.5, 1, images)

    def system():
        own = easy + rng.normal(0, 0.7, images)
        margins = [own + rng.normal(0, spread) + rng.normal(0, 0.7, images) for _ in range(seeds)]
        return [Counts(whole * (margin > 0)[:, None], whole, labels) for margin in margins]

    return system(), system()


@pytest.mark.slow
@pytest.mark.parametrize(("seeds", "spread"), [(3, 0.0), (3, 0.2), (5, 0.1), (5, 0.3)])
def test_the_interval_contains_the_truth_in_95_percent_of_the_cases(monkeypatch, seeds, spread):
    monkeypatch.setattr("csg.bootstrap.DRAWS", 300)
    rng = np.random.default_rng(0)
    found = [estimate(*two_systems(rng, seeds, spread)) for _ in range(200)]
    assert 0.91 <= np.mean([one.low <= 0 <= one.high for one in found]) <= 0.99


def test_pairing_makes_the_interval_of_the_difference_narrower():
    own, other = two_systems(np.random.default_rng(0), 3, 0.0)
    paired, single = estimate(own, other), estimate(own)
    assert paired.mean == pytest.approx(single.mean - estimate(other).mean)
    assert estimate(own, own).low == estimate(own, own).high == 0
    shuffled = np.random.default_rng(1).permutation(150)
    unpaired = [Counts(run.right[shuffled], run.whole[shuffled], run.labels) for run in other]
    assert paired.high - paired.low < 0.9 * (estimate(own, unpaired).high - estimate(own, unpaired).low)


def test_the_interval_of_one_run_is_the_bootstrap_over_images():
    (run, *_), _ = two_systems(np.random.default_rng(0), 1, 0.0, classes=1)
    found, share = estimate([run]), run.right.mean()
    assert found.mean == share
    assert found.deviation is None
    assert (found.high - found.low) / 2 == pytest.approx(1.976 * np.sqrt(share * (1 - share) / 150), rel=0.08)


def test_the_score_is_the_mean_over_the_classes_that_occur():
    counts = Counts(np.array([[1, 0, 0], [0, 2, 0]]), np.array([[1, 0, 0], [1, 4, 0]]), np.zeros(2))
    assert counts.scores(np.array([[1.0, 1.0], [2.0, 0.0]])).tolist() == [0.5, 1.0]
