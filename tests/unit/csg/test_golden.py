"""Golden answers: small images with PyTorch's answers, which a right model meets and a wrong one does not."""

import io
import json

import numpy as np
import pytest

from csg.bundle import read_bundle
from csg.errors import InputError, VerificationError
from csg.golden import golden_arrays, golden_pixels, parse_golden
from tests.helpers.tiny_bundle import write_colour_bundle, write_scene_bundle

WRITERS = [write_colour_bundle, write_scene_bundle]


@pytest.mark.parametrize("write", WRITERS)
def test_a_bundle_keeps_its_golden_answers(tmp_path, write):
    bundle = write(tmp_path / "bundle")

    assert read_bundle(bundle.path).golden == bundle.golden


@pytest.mark.parametrize("write", WRITERS)
def test_an_answer_within_the_tolerance_is_accepted_and_others_are_not(tmp_path, write):
    bundle = write(tmp_path / "bundle")
    for answer in bundle.golden.answers:
        right = answer.expected.copy()
        wrong = right + 1 if right.dtype == np.float32 else (right + 1) % 3
        _, padded = golden_pixels(answer, bundle.card)

        assert answer.difference(right) is None
        assert answer.name in answer.difference(wrong)
        assert "shape" in answer.difference(right[1:])
        if padded:
            assert answer.difference(padded.restore(right), padded) is None
            assert answer.difference(padded.restore(wrong), padded)


@pytest.mark.parametrize("value", [np.nan, np.inf, 0.0])
def test_logits_that_are_nan_infinite_or_zero_are_not_the_answer(tmp_path, value):
    answer = write_colour_bundle(tmp_path / "bundle").golden.answers[0]

    assert answer.difference(np.full(3, value, np.float32))


def test_the_arrays_for_scripts_hold_prepared_pixels_and_answers(tmp_path):
    bundle = write_colour_bundle(tmp_path / "bundle")
    with np.load(io.BytesIO(golden_arrays(bundle.golden, bundle.card))) as arrays:
        for index, answer in enumerate(bundle.golden.answers):
            np.testing.assert_array_equal(arrays[f"pixels_{index}"][0], golden_pixels(answer, bundle.card)[0])
            np.testing.assert_array_equal(arrays[f"expected_{index}"][0], answer.expected)


def _changed(golden, **changes):
    tree = json.loads(golden.to_json())
    tree["answers"][0] |= changes
    return json.dumps(tree)


@pytest.mark.parametrize(
    "changes",
    [
        {"logits": [1.0, 2.0]},
        {"logits": [1.0, 2.0, float("nan")]},
        {"logits": []},
        {"tolerance": -1},
        {"tolerance": float("inf")},
        {"image": "bm8gaW1hZ2U="},
        {"image": ""},
        {"image": "not base64!"},
        {"label_map": "bm8gaW1hZ2U="},
        {"surprise": 1},
    ],
)
def test_golden_answers_that_do_not_fit_the_card_are_refused(tmp_path, changes):
    bundle = write_colour_bundle(tmp_path / "bundle")

    with pytest.raises(InputError, match="golden"):
        parse_golden(_changed(bundle.golden, **changes), bundle.card, "golden.json")


def test_a_label_map_with_a_class_beyond_the_list_is_refused(tmp_path):
    scenes = write_scene_bundle(tmp_path / "scenes")
    few = scenes.card.model_copy(update={"classes": scenes.card.classes[:1]})

    with pytest.raises(InputError, match="label map"):
        parse_golden(scenes.golden.to_json(), few, "golden.json")


def test_changed_golden_answers_do_not_match_their_checksum(tmp_path):
    path = write_colour_bundle(tmp_path / "bundle").path
    (path / "golden.json").write_text(_changed(read_bundle(path).golden, tolerance=100))

    with pytest.raises(VerificationError, match="SHA-256"):
        read_bundle(path)
