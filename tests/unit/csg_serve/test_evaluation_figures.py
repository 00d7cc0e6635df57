"""The figures of an evaluation: against their definitions, in any order, in constant memory; and its journal."""

import itertools
import random
import tracemalloc

import numpy as np
import pytest

from csg.confidence_intervals import SegmentationBootstrap, mean_class_accuracy_interval, wilson
from csg.errors import InputError, UsageError
from csg.metrics import BINS, PixelConfusion, Reliability, segmentation_scores
from csg_serve.evaluate.classification import summarise
from csg_serve.evaluate.journal import Journal
from csg_serve.evaluate.latency_histogram import Latencies
from tests.helpers.evaluations import TIMES, a_subject, lines_of


def test_calibration_is_that_of_its_definition():
    rng, found = np.random.default_rng(0), Reliability()
    confidences = np.concatenate([rng.random(5000).round(6), [0, 1, 1 / BINS, 2 / BINS, 0.4]])
    right = rng.random(len(confidences)) < confidences**2
    for confidence, correct in zip(confidences, right, strict=True):
        found.add(float(confidence), bool(correct))
    ece, edges = 0.0, np.arange(BINS + 1) / BINS
    for low, high in itertools.pairwise(edges):
        inside = (confidences.round(6) > low) & (confidences.round(6) <= high) | (confidences == 0) & (low == 0)
        ece += abs(right[inside].mean() - confidences[inside].mean()) * inside.mean()
    assert found.images.sum() == len(confidences)
    assert found.ece == pytest.approx(ece, abs=2e-4)
    assert found.ece > 0.1


def test_intervals():
    """Wilson's against published values, the bootstraps against what they estimate."""
    low, high = wilson(np.array([0, 5, 81, 0]), np.array([10, 10, 263, 0]))
    assert low[:3] == pytest.approx([0, 0.2366, 0.2553], abs=1e-4)  # Newcombe 1998, table I: 81 of 263
    assert high[:3] == pytest.approx([0.2775, 0.7634, 0.3662], abs=1e-4)
    assert np.isnan(low[3])
    confusion = np.array([[900, 100, 0], [5, 5, 0], [0, 0, 0]])
    low, high = mean_class_accuracy_interval(confusion)
    spread = np.sqrt(0.9 * 0.1 / 1000 + 0.5 * 0.5 / 10) / 2
    assert (low, high) == pytest.approx((0.7 - 1.96 * spread, 0.7 + 1.96 * spread), abs=0.02)


def test_the_bootstrap_over_scenes_is_one_and_knows_no_order():
    rng, counts = np.random.default_rng(0), PixelConfusion(4)
    matrices = []
    for _ in range(40):
        true = rng.integers(0, 4, 500).astype(np.uint8)
        wrong = rng.random(500) < rng.random() * 0.6
        matrices.append(counts.of(true, np.where(wrong, rng.integers(0, 4, 500), true).astype(np.uint8)))
    forward, backward = SegmentationBootstrap(4), SegmentationBootstrap(4)
    for place, matrix in enumerate(matrices):
        forward.add(place, matrix)
    for place, matrix in reversed(list(enumerate(matrices))):
        backward.add(place, matrix)
    assert forward.miou() == backward.miou()
    drawn = [segmentation_scores(sum(matrices[p] for p in rng.integers(0, 40, 40))).miou for _ in range(1000)]
    assert forward.miou() == pytest.approx(np.percentile(drawn, [2.5, 97.5]), abs=0.015)
    assert SegmentationBootstrap(4).miou() is None


def test_latencies_are_within_one_percent():
    values, found = np.random.default_rng(0).lognormal(3, 1, 20000), Latencies()
    for value in values:
        found.add(value)
    for share in (0.01, 0.5, 0.9, 0.99, 1):
        assert found.quantile(share) == pytest.approx(np.quantile(values, share, method="inverted_cdf"), rel=0.011)


def test_the_figures_do_not_depend_on_the_order_of_the_answers(tmp_path):
    lines = list(lines_of(3000, 7))
    shuffled = [lines[0], *random.Random(1).sample(lines[1:], 3000)]
    one, other = (summarise(tmp_path, a_subject(3000), tuple("abcdefg"), some) for some in (lines, shuffled))
    assert {k: v for k, v in one.to_dict().items() if k not in TIMES} == {
        k: v for k, v in other.to_dict().items() if k not in TIMES
    }
    assert one.mistakes == other.mistakes
    surest = sorted(-line["confidence"] for line in lines[1:] if line["true"] != line["predicted"])[:24]
    assert [-mistake.confidence for mistake in one.mistakes] == surest


def test_memory_does_not_grow_with_the_images(tmp_path):
    def peak(count):
        tracemalloc.start()
        summarise(tmp_path, a_subject(count), tuple("abcdefg"), lines_of(count, 7))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    few = peak(5_000)
    assert peak(50_000) < few + 100_000


def test_a_journal_survives_a_crash_and_is_one_process_at_a_time(tmp_path):
    journal = Journal(tmp_path, 5)
    journal.begin("localhost:8001")
    for place in (3, 1):
        journal.add(place, ms=1.5, predicted=0)
    with pytest.raises(UsageError, match="another process"):
        Journal(tmp_path, 5)
    journal.close()
    whole = journal.path.read_bytes()
    journal.path.write_bytes(whole + b'{"place": 4, "at": 0.5, "pre')
    again = Journal(tmp_path, 5)
    assert (again.pending(), again.done) == ([0, 2, 4], 2)
    again.add(0, ms=2.5, predicted=0)
    assert [line.get("place") for line in again.lines()] == [None, 3, 1, 0]
    again.close()
    for damaged in (whole.replace(b'"place": 3', b'"pl'), whole.replace(b'"place": 3', b'"place": 5'), b"[]\n"):
        journal.path.write_bytes(damaged)
        with pytest.raises(InputError, match="damaged in line"):
            Journal(tmp_path, 5)
