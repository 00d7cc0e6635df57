"""JSON that every reader takes."""

import json
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic_core import from_json

from csg.strict_json import json_text

TREES = st.recursive(
    st.none() | st.booleans() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)


@given(st.dictionaries(st.text(), TREES))
def test_what_is_written_is_read_back_by_a_strict_reader(tree):
    assert from_json(json_text(tree), allow_inf_nan=False) == tree == json.loads(json_text(tree, indent=None))


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_are_none_are_refused(number):
    with pytest.raises(ValueError, match="JSON"):
        json_text({"a": [number]})


@pytest.mark.parametrize(
    ("name", "shown"),
    [("caf\udce9", "caf\\xe9"), ("\ud83d", "\\ud83d"), ("\U0001f408", "\U0001f408"), ("\\ud", "\\ud")],
)
def test_bytes_that_are_not_utf8_are_shown(name, shown):
    assert from_json(json_text({"image": name, name: 1})) == {"image": shown, shown: 1}
