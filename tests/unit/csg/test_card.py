"""Model cards: parsed strictly, with errors on one line."""

import json

import pytest

from csg.card import parse_card
from csg.errors import InputError, printable
from tests.helpers.tiny_bundle import tiny_card


def test_a_card_of_a_newer_version_is_refused():
    tree = json.loads(tiny_card().to_json())
    with pytest.raises(InputError, match=r"newer csg.*schema_version 3.*update csg"):
        parse_card(json.dumps(tree | {"schema_version": 3, "something": "new"}), "the card")
    with pytest.raises(InputError, match="schema_version"):
        parse_card(json.dumps(tree | {"schema_version": "one"}), "the card")
    with pytest.raises(InputError, match="the card"):
        parse_card(b"\xff{", "the card")


@pytest.mark.parametrize("field", ["a\nb", "a\r\nb", "a\u2028b"])
def test_a_line_break_in_a_field_name_keeps_the_error_on_one_line(field):
    card = json.loads(tiny_card().to_json()) | {field: 1}
    with pytest.raises(InputError) as caught:
        parse_card(json.dumps(card), "card.json")
    assert f"{printable(field)}: Extra inputs are not permitted" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_a_card_holds_finite_numbers(number):
    text = tiny_card().to_json().replace('"tolerance":0.0', f'"tolerance":{number}')
    with pytest.raises(InputError, match=r"parity\.tolerance: Input should be a finite number"):
        parse_card(text, "the card")
