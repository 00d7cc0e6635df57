"""The figures of an evaluation are computed from its records in any order and in constant memory."""

import random
import tracemalloc
from pathlib import Path

import numpy as np
import pytest

from csg.datasets.label_sets import read_label_set
from csg.errors import InputError
from csg_serve.evaluate.classification import summarise_classification
from csg_serve.evaluate.latency_histogram import LatencyHistogram
from csg_serve.evaluate.progress import Progress
from csg_serve.evaluate.records import ClassificationResult, SegmentationAnswer, Skipped
from csg_serve.evaluate.segmentation import summarise_segmentation
from tests.helpers.evaluations import SESSION, TIMES, make_answer, make_records, make_spec

CLASSES = tuple("abcdefg")


def make_segmentation_answer(index, cells, pixels):
    return SegmentationAnswer(index=index, elapsed_s=index, latency_ms=1.0, cells=cells, pixels=pixels)


def test_latency_quantiles_are_exact_to_one_percent():
    values, found = np.random.default_rng(0).lognormal(3, 1, 20000), LatencyHistogram()
    for value in values:
        found.add(value)
    for share in (0.01, 0.5, 0.9, 0.99, 1):
        assert found.quantile(share) == pytest.approx(np.quantile(values, share, method="inverted_cdf"), rel=0.011)


def test_progress_adds_up_the_sessions():
    progress = Progress()
    for record in (
        SESSION,
        make_answer(1000, 0, 0),
        Skipped(index=1, elapsed_s=2.0, reason="broken"),
        SESSION,
        make_answer(500, 0, 0),
    ):
        progress.add(record)
    assert (progress.sessions, progress.answered, progress.skipped) == (2, 2, 1)
    assert progress.servers == [SESSION.server]
    assert progress.started == SESSION.started
    assert progress.seconds == 2.5
    assert progress.images_per_s == 0.8


def test_the_order_of_the_answers_does_not_matter(tmp_path):
    records = list(make_records(3000, 7))
    shuffled = [records[0], *random.Random(1).sample(records[1:], 3000)]
    one, other = (summarise_classification(tmp_path, make_spec(3000), CLASSES, some) for some in (records, shuffled))
    assert one.to_result(None).model_dump(exclude=TIMES) == other.to_result(None).model_dump(exclude=TIMES)
    assert one.errors == other.errors
    highest = sorted((answer.confidence for answer in records[1:] if answer.true != answer.predicted), reverse=True)
    assert [error.confidence for error in one.errors] == highest[:24]


def test_memory_does_not_grow_with_the_images(tmp_path):
    def peak(count):
        tracemalloc.start()
        summarise_classification(tmp_path, make_spec(count), CLASSES, make_records(count, 7))
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    few = peak(5_000)
    assert peak(50_000) < few + 100_000


def test_a_result_survives_the_file(tmp_path):
    page = tmp_path / "report.html"
    result = summarise_classification(tmp_path, make_spec(10), CLASSES, make_records(10, 7)).to_result(page)
    assert ClassificationResult.model_validate_json(result.model_dump_json()) == result
    assert result.report == Path(page)


def test_segmentation_counts_pixels_of_all_images(tmp_path):
    labels = read_label_set("digit-scenes")
    columns = len(labels.classes) + 1
    records = [
        SESSION,
        make_segmentation_answer(0, (0, 1), (30, 10)),
        make_segmentation_answer(2, (columns + 1,), (60,)),
    ]
    report = summarise_segmentation(tmp_path, make_spec(3), labels, records)
    assert report.scores.pixel_accuracy == 0.9
    np.testing.assert_allclose(report.scores.per_class[:2], [30 / 40, 60 / 70])
    assert np.isnan(report.miou_per_image[1])
    assert report.examples == {"best": 2, "median": 0, "worst": 0}
    assert report.to_result(None).miou == pytest.approx((30 / 40 + 60 / 70) / 2)


def test_without_a_labelled_pixel_there_is_no_score(tmp_path):
    records = [SESSION, make_segmentation_answer(0, (), ())]
    with pytest.raises(InputError, match=r"every pixel of the 1 masks of d is ignored.*label set digit-scenes"):
        summarise_segmentation(tmp_path, make_spec(1), read_label_set("digit-scenes"), records)


def test_an_image_without_a_labelled_pixel_does_not_change_the_score(tmp_path):
    labels, one = read_label_set("digit-scenes"), make_segmentation_answer(0, (0, 1), (30, 10))
    records = ([one], [one, make_segmentation_answer(1, (), ())])
    alone, beside = (summarise_segmentation(tmp_path, make_spec(2), labels, some).to_result(None) for some in records)
    assert beside.miou == alone.miou == 0.375
    assert beside.images == 2
    assert (alone.miou_interval, beside.miou_interval) == (None, None)


def test_without_an_answer_there_are_no_figures(tmp_path):
    records = [SESSION, Skipped(index=0, elapsed_s=0.1, reason="broken")]
    with pytest.raises(InputError, match="none of the 1 images of d can be read"):
        summarise_classification(tmp_path, make_spec(1), CLASSES, records)
    with pytest.raises(InputError, match="none of the 1 images of d can be read"):
        summarise_segmentation(tmp_path, make_spec(1), read_label_set("digit-scenes"), records)
