"""Model cards: parsed strictly, with errors on one line."""

import json

import pytest

from csg.card import class_name, parse_card
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


@pytest.mark.parametrize("name", ["", " ", "a\tb", "a\x7f", "a\x9b", "a\u2028b", "a\udce9", "x" * 201])
def test_a_name_that_no_class_can_have_is_refused(name):
    with pytest.raises(ValueError, match="a class name "):
        class_name(name)


def test_class_names_are_composed():
    assert class_name("cafe\u0301 \U0001f469\u200d\U0001f52c") == "caf\u00e9 \U0001f469\u200d\U0001f52c"


def test_a_card_whose_output_is_not_of_its_task_is_refused():
    text = tiny_card().to_json().replace('"dtype":"FP32"', '"dtype":"UINT8"')
    with pytest.raises(InputError, match=r"the card is not a model card.*that of a classifier FP32 logits"):
        parse_card(text, "the card")
