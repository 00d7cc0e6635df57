"""Answers as objects: their figures, what they print, and the picture that a notebook shows."""

import base64
import io
import re
from dataclasses import replace

import numpy as np
import pytest
from PIL import Image

from csg.errors import InputError
from csg.overlays import overlay
from csg_serve import ClassAnswer, MaskAnswer

NAMES = ("<b>cat</b>", "dog", "a & b")
PROBABILITIES = np.array([0.2, 0.7, 0.1])
PHOTO = Image.new("RGB", (400, 100), (200, 10, 10))


def classes(name="photos/a.png", image=PHOTO, probabilities=PROBABILITIES):
    return ClassAnswer(name, image, NAMES, probabilities)


def scene():
    mask = np.zeros((100, 400), np.uint8)
    mask[:25] = 2
    return MaskAnswer("street.png", PHOTO, NAMES, ((255, 0, 0), (0, 255, 0), (0, 0, 255)), mask)


def picture(answer):
    (data,) = re.findall(r'src="data:image/png;base64,([^"]+)"', answer._repr_html_())
    return Image.open(io.BytesIO(base64.b64decode(data)))


def test_the_classes_of_an_image():
    answer = classes()
    assert (answer.label, answer.probability) == ("dog", 0.7)
    assert answer.top(2) == [("dog", 0.7), ("<b>cat</b>", 0.2)]
    assert [len(answer.top(count)) for count in (-1, 0, 1, 9)] == [0, 0, 1, 3]
    assert repr(answer) == "ClassAnswer('photos/a.png': dog 70.0 %, <b>cat</b> 20.0 %, a & b 10.0 %)"


def test_of_equal_probabilities_the_first_class_leads_everywhere():
    answer = classes(probabilities=np.full(3, 1 / 3))
    assert answer.top(1)[0][0] == answer.label == NAMES[0]


def test_the_mask_of_an_image():
    answer = scene()
    assert answer.shares == {"<b>cat</b>": 0.75, "a & b": 0.25}
    assert repr(answer) == "MaskAnswer('street.png': 400 x 100, <b>cat</b> 75.0 %, a & b 25.0 %)"
    expected = overlay(PHOTO, answer.mask, answer.colours)
    assert answer.overlay().tobytes() == expected.tobytes()


@pytest.mark.parametrize("answer", [classes(), scene()])
def test_the_picture_is_small_escaped_and_needs_nothing_else(answer):
    html = answer._repr_html_()
    assert picture(answer).size == (192, 48)
    assert "&lt;b&gt;cat&lt;/b&gt;" in html
    assert "<b>" not in html
    assert "a &amp; b" in html
    assert not re.search(r"https?:|<script|url\(|@import", html)


@pytest.mark.parametrize(("size", "shown"), [((8, 8), (192, 192)), ((150, 100), (150, 100)), ((9000, 2), (192, 1))])
def test_a_tiny_image_is_enlarged_and_a_large_one_reduced(size, shown):
    assert picture(classes(image=Image.new("RGB", size))).size == shown


def test_names_can_not_break_the_picture_or_the_line():
    answer = classes(name="<img src=x onerror=alert(1)>\n\x1b[31m.png")
    assert "<img src=x" not in answer._repr_html_()
    assert "\n" not in repr(answer)
    assert "\x1b" not in repr(answer) + answer._repr_html_()


def test_an_overlay_over_another_image_is_refused(tmp_path):
    PHOTO.resize((40, 10)).save(tmp_path / "street.png")
    answer = replace(scene(), image=tmp_path / "street.png")
    with pytest.raises(InputError, match="has changed since it was predicted"):
        answer.overlay()
    assert "has changed since" in answer._repr_html_()


def test_an_image_that_is_gone_leaves_the_bars(tmp_path):
    html = classes(image=tmp_path / "gone.png")._repr_html_()
    assert "gone.png does not exist" in html
    assert "70.0 %" in html
