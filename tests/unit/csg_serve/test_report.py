"""The report of an evaluation as people see it: in headless Chromium, on a desk, on a phone, in the dark."""

import random
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from csg.datasets.segmentation import read_segmentation_dataset
from csg.overlays import png_bytes
from csg_serve.evaluate.classification import summarise_classification
from csg_serve.evaluate.records import SegmentationAnswer
from csg_serve.evaluate.report import write_report
from csg_serve.evaluate.segmentation import summarise_segmentation
from tests.helpers.browser import HEADINGS, SCENE_HEADINGS, check_page, needs_chromium, opened, started
from tests.helpers.evaluations import LABELS, SESSION, make_answer, make_records, make_spec
from tests.helpers.tiny_bundle import tiny_card, write_scene_bundle

HOSTILE = '<img src="https://x.invalid/x.png"><script>alert(1)</script>"\'&'
WINDOWS = [(1280, "light"), (1280, "dark"), (390, "light")]


@pytest.fixture(scope="module")
def browser():
    with started() as found:
        yield found


def report_of(tmp_path, names, count, pictures):
    """A classifier's report on made-up answers; image files for the first `pictures` places of each 30."""
    rng, paths = np.random.default_rng(0), [tmp_path / f"{place}.png" for place in range(count)]
    for place, path in enumerate(paths):
        if place % 30 < pictures:
            side = 8 if place % 2 else 300
            Image.new("RGB", (2 * side, side), tuple(rng.integers(0, 256, 3).tolist())).save(path)
    card = tiny_card().model_copy(update={"classes": names})
    report = summarise_classification(tmp_path, make_spec(count), names, make_records(count, len(names)))
    write_report(tmp_path / "page.html", report, card, paths)
    return report, tmp_path / "page.html"


@needs_chromium
def test_a_classifier_with_hostile_names(tmp_path, browser):
    """Names of classes are the user's: they are shown as they are, and nothing of them runs."""
    names = (HOSTILE, "b" * 200, *"cdefg")
    report, page = report_of(tmp_path, names, 300, 30)
    for width, scheme in WINDOWS:
        with opened(browser, page, width, scheme) as tab:
            check_page(tab, HEADINGS, 24)
            assert tab.locator("script").count() == 0
            assert HOSTILE in tab.locator(".bars th[scope=row]").first.inner_text()
            assert f"{100 * report.scores.accuracy:.2f} %" in tab.locator(".tiles").inner_text()
            cells = [int(cell) for cell in tab.locator(".matrix td.hit, .matrix td.miss").all_inner_texts()]
            assert sum(cells) == 300
            bins = tab.locator("#calibration details tbody tr")
            assert bins.count() == (report.reliability.images > 0).sum()
            assert tab.locator("#calibration svg .gap").count() == bins.count()
            assert tab.locator("#latency svg .percentile").count() == 3
            assert all(size <= 160 for size in tab.evaluate("[...document.images].map(i => i.naturalWidth)"))


@needs_chromium
def test_as_many_classes_as_there_are(tmp_path, browser):
    """345: the lowest twenty, the rest behind a click, the matrix a picture; files that are gone are said to be."""
    _, page = report_of(tmp_path, tuple(f"class number {n}" for n in range(345)), 2000, 0)
    for width, scheme in WINDOWS:
        with opened(browser, page, width, scheme) as tab:
            check_page(tab, HEADINGS, 1)
            assert tab.locator(".bars").first.locator("tbody tr").count() == 20
            assert tab.locator("#classes details tbody tr").count() == 345
            assert tab.locator(".pairs tbody tr").count() == 30
            assert tab.locator(".gone").count() == 24
    assert page.stat().st_size < 1_000_000


@needs_chromium
def test_a_segmenter(tmp_path, browser):
    rng = np.random.default_rng(0)
    for kind in ("images", "labels"):
        (tmp_path / "data" / kind).mkdir(parents=True)
    (tmp_path / "data" / "labels.yaml").write_text(LABELS)
    for number in range(5):
        pixels = rng.integers(0, 256, (40, 60, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / "data" / "images" / f"{number}.png")
        Image.fromarray(pixels.argmax(2).astype(np.uint8)).save(tmp_path / "data" / "labels" / f"{number}.png")
    scenes, made = read_segmentation_dataset([tmp_path / "data"]), random.Random(0)
    records = [SESSION]
    for index in range(5):
        cells = {"cells": [0, 1, 3, 5, 10], "pixels": [made.randrange(1, 900) for _ in range(5)]}
        records.append(SegmentationAnswer(index=index, elapsed_s=index, latency_ms=30 + index, **cells))
    report = summarise_segmentation(tmp_path, make_spec(5), scenes.labels, records)
    for name in report.examples:
        (tmp_path / f"{name}.png").write_bytes(png_bytes(Image.new("RGB", (3 * 2048, 1024), "red")))
    card = write_scene_bundle(tmp_path / "bundle").card
    write_report(tmp_path / "page.html", replace(report, pictures=()), card, scenes.paths)
    for width, scheme in WINDOWS:
        with opened(browser, tmp_path / "page.html", width, scheme) as tab:
            check_page(tab, SCENE_HEADINGS, 3)
            assert tab.locator(".matrix thead th").all_inner_texts() == ["red", "green", "blue", "no class"]
            assert f"{100 * report.scores.miou:.2f} %" in tab.locator(".tiles").inner_text()
            assert max(tab.evaluate("[...document.images].map(i => i.naturalWidth)")) == 1500


def test_the_page_needs_nothing_else(tmp_path):
    _, page = report_of(tmp_path, tuple("abc"), 90, 1)
    text = page.read_text()
    assert not re.search(r"""(src|href)\s*=\s*["'](?!data:|#)""", text)
    assert not re.search(r"@import|url\(|<script|<iframe|https?://", text)
    assert "default-src 'none'" in text


@pytest.mark.parametrize("right", [True, False])
def test_all_right_and_all_wrong(tmp_path, right):
    """No mistake to show, no class that is recognised: the page still stands."""
    records = [SESSION, make_answer(0, 0, 0 if right else 1, 1.0, 3.0)]
    report = summarise_classification(tmp_path, make_spec(1), ("red", "green", "blue"), records)
    write_report(tmp_path / "page.html", report, tiny_card(), [tmp_path / "0.png"])
    assert ("all 1 answers are correct" in (tmp_path / "page.html").read_text()) == right


@needs_chromium
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_cell_of_the_matrix_can_be_read(tmp_path, browser, scheme):
    """At every depth of its colour a number has the contrast that WCAG asks of text, 4.5 to 1."""
    names, records = tuple(f"{n}" for n in range(20)), [SESSION]
    for true in range(20):
        for number in range(20):
            predicted = true if number <= true else (true + 1) % 20
            records.append(make_answer(20 * true + number, true, predicted))
    report = summarise_classification(tmp_path, make_spec(400), names, records)
    write_report(tmp_path / "page.html", report, tiny_card(), [tmp_path / f"{n}.png" for n in range(400)])
    with opened(browser, tmp_path / "page.html", 1280, scheme) as tab:
        check_page(tab, HEADINGS, 0)
