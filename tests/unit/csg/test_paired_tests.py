"""Two models on the same images: against the literature, slow references and simulations; degenerate cases."""

import numpy as np
import pytest
from scipy import stats

from csg.metrics import classification_scores, segmentation_scores
from csg.paired_tests import compare_classifications, compare_confusions, mcnemar


def predictions(rng, labels, *, only_a, only_b, both=0.6):
    """Predictions of two models, of whose images a share is right in A alone, in B alone, in both."""
    drawn = rng.random(len(labels))
    right_a = (drawn < only_a) | (drawn > 1 - both)
    right_b = ((drawn >= only_a) & (drawn < only_a + only_b)) | (drawn > 1 - both)
    return [np.where(right, labels, labels + 1) for right in (right_a, right_b)]


def scenes(rng, images=40, classes=3, blank=0):
    """Confusion matrices of two segmenters that are equally good; the first `blank` images have no labelled pixel."""
    pixels = rng.integers(0, 50, (2, images, classes, classes + 1)) + 200 * np.eye(classes, classes + 1, dtype=int)
    pixels[:, :, :, classes] = 0
    pixels[:, :blank] = 0
    return pixels


def test_mcnemars_exact_test_gives_the_published_p():
    """Bentur et al. 2009, in Fagerland, Lydersen and Laake 2013: by hand 2 (1 + 8) / 2^8."""
    assert mcnemar(1, 7) == mcnemar(7, 1) == pytest.approx(0.0703125)
    assert mcnemar(0, 6) == pytest.approx(2 / 2**6)
    assert mcnemar(0, 5) > 0.05  # why fewer than six images settle nothing
    assert mcnemar(86, 150) == pytest.approx(3.7e-5, rel=0.02)  # Agresti 1990, table 10.1
    assert mcnemar(5, 5) == mcnemar(0, 0) == 1


def test_intervals_of_classifiers_equal_those_of_a_loop_over_samples(monkeypatch):
    monkeypatch.setattr("csg.bootstrap.DRAWS", 200)
    rng = np.random.default_rng(2)
    labels = rng.choice([0, 1, 4], 60, p=[0.6, 0.3, 0.1])
    a, b = predictions(rng, labels, only_a=0.1, only_b=0.2)
    found, samples = compare_classifications(labels, a, b, seed=7), np.random.default_rng(7)
    draws = {name: [] for name in found.differences}
    for _ in range(200):
        sample = samples.integers(0, 60, 60)
        of_a, of_b = (classification_scores(labels[sample], one[sample], 6) for one in (a, b))
        for name, values in draws.items():
            values.append(getattr(of_b, name) - getattr(of_a, name))
    telling = ((a == labels) != (b == labels)).sum()
    assert (found.images, found.telling, found.differing) == (60, telling, (a != b).sum())
    for name, one in found.differences.items():
        half = stats.t.ppf(0.975, telling - 1) * np.std(draws[name], ddof=1)
        assert one.a == pytest.approx(getattr(classification_scores(labels, a, 6), name))
        assert one.b == pytest.approx(getattr(classification_scores(labels, b, 6), name))
        assert (one.low, one.high) == pytest.approx((one.b - one.a - half, one.b - one.a + half))


def test_intervals_of_segmenters_equal_those_of_a_loop_over_samples(monkeypatch):
    monkeypatch.setattr("csg.bootstrap.DRAWS", 200)
    a, b = scenes(np.random.default_rng(0), blank=2)
    found, samples = compare_confusions(a, b), np.random.default_rng(0)
    draws = {name: [] for name in found.differences}
    for _ in range(200):
        sample = samples.integers(0, 40, 40)
        of_a, of_b = (segmentation_scores(one[sample].sum(0)) for one in (a, b))
        for name, values in draws.items():
            values.append(getattr(of_b, name) - getattr(of_a, name))
    assert (found.images, found.differing, found.p_value) == (40, 38, None)
    for name, one in found.differences.items():
        half = stats.t.ppf(0.975, 37) * np.std(draws[name], ddof=1)
        assert one.difference == pytest.approx(
            getattr(segmentation_scores(b.sum(0)), name) - getattr(segmentation_scores(a.sum(0)), name)
        )
        assert (one.low, one.high) == pytest.approx((one.difference - half, one.difference + half))


@pytest.mark.slow
@pytest.mark.parametrize(("only_a", "only_b"), [(0.1, 0.1), (0.04, 0.1), (0.2, 0.02)])
def test_intervals_of_classifiers_contain_the_truth_in_95_percent_of_the_cases(monkeypatch, only_a, only_b):
    monkeypatch.setattr("csg.bootstrap.DRAWS", 300)
    rng, hits = np.random.default_rng(1), []
    for _ in range(300):
        labels = rng.integers(0, 5, 300)
        found = compare_classifications(labels, *predictions(rng, labels, only_a=only_a, only_b=only_b))
        hits.append([one.low <= only_b - only_a <= one.high for one in found.differences.values()])
    assert (np.mean(hits, axis=0) >= 0.93).all()
    assert (np.mean(hits, axis=0) <= 0.97).all()


def test_intervals_of_segmenters_contain_the_truth_in_95_percent_of_the_cases(monkeypatch):
    monkeypatch.setattr("csg.bootstrap.DRAWS", 300)
    rng = np.random.default_rng(0)
    found = [compare_confusions(*scenes(rng)).differences.values() for _ in range(300)]
    hits = np.mean([[one.low <= 0 <= one.high for one in both] for both in found], axis=0)
    assert (hits >= 0.93).all()
    assert (hits <= 0.97).all()


def test_a_difference_that_is_there_is_found_and_its_sign_is_that_of_the_second_model():
    rng, labels = np.random.default_rng(0), np.arange(1000) % 7
    a, b = predictions(rng, labels, only_a=0.02, only_b=0.08)
    for first, second, verdict in ((a, b, "better"), (b, a, "worse"), (a, a, "not settled")):
        found = compare_classifications(labels, first, second)
        assert [found.verdict(name) for name in found.differences] == [verdict, verdict]
    assert found.main_score == "mean_class_accuracy"


def test_not_worse_needs_evidence_and_a_margin():
    rng = np.random.default_rng(0)
    for images, shown in ((100, False), (20000, True)):
        labels = np.arange(images) % 4
        found = compare_classifications(labels, *predictions(rng, labels, only_a=0.05, only_b=0.05))
        assert found.verdict("accuracy") == "not settled"
        assert found.not_worse("accuracy", 0.01) == shown
    assert not found.not_worse("accuracy", 1e-6)


def test_identical_answers_differ_by_nothing():
    found = compare_classifications(np.arange(9) % 3, np.zeros(9, int), np.zeros(9, int))
    assert (found.p_value, found.differing, found.telling) == (1, 0, 0)
    for one in found.differences.values():
        assert (one.difference, one.low, one.high) == (0, 0, 0)
    assert found.not_worse("accuracy", 0.001)
    a, _ = scenes(np.random.default_rng(0))
    assert {one.high for one in compare_confusions(a, a).differences.values()} == {0}


@pytest.mark.parametrize("images", [1, 2, 5])
def test_a_handful_of_images_settles_nothing(images):
    labels = np.zeros(images, int)
    for a, b in ((labels, labels + 1), (labels + 1, labels)):
        found = compare_classifications(labels, a, b)
        assert abs(found.differences["accuracy"].difference) == 1
        assert found.differences["accuracy"].low is None
        assert found.verdict("accuracy") == "not settled"
        assert not found.not_worse("accuracy", 0.5)
    assert compare_classifications(np.zeros(6, int), np.ones(6, int), np.zeros(6, int)).verdict("accuracy") == "better"


def test_two_wrong_answers_differ_but_tell_nothing():
    labels = np.zeros(20, int)
    found = compare_classifications(labels, labels + 1, labels + 2)
    assert (found.differing, found.telling, found.p_value) == (20, 0, 1)
    assert found.differences["accuracy"].high == 0


def test_scenes_without_a_labelled_pixel_have_no_score():
    blank = np.zeros((3, 2, 3), np.int64)
    found = compare_confusions(blank, blank)
    assert found.differences["miou"].model_dump() == dict.fromkeys(("a", "b", "difference", "low", "high"))
    assert found.verdict("miou") == "not settled"
    one = blank.copy()
    one[0, 0] = [5, 1, 0]
    other = one[:, :, [1, 0, 2]]
    found = compare_confusions(one, other)
    assert (found.differing, found.differences["miou"].low) == (1, None)
    assert found.model_validate_json(found.model_dump_json()) == found
