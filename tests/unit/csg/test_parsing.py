"""JSON and YAML from outside: values as they are meant, or a ValueError of one line, at once."""

import pytest
import yaml

from csg.parsing import parse_json, parse_yaml

BOMB = "a0: &a0 [x, x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))


@pytest.mark.parametrize(
    "text",
    [
        *("", "[" * 10_000, '{"a":' * 10_000, "NaN", "1e999", "[-1e999]", "1" + 400 * "0", "9" * 5000, '"\\ud800"'),
        *('"\x1b[31m"', "\0", "{", "\ufeff{}", "{'a': 1}", '{"a": [1, {"b": Infinity}]}'),
    ],
)
def test_json_that_is_refused(text):
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        parse_json(text.encode())
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        parse_json(b"\xff" + text.encode())


@pytest.mark.parametrize(
    "text",
    [
        *("[" * 10_000, "- " * 10_000, "{a: " * 10_000, BOMB, "&a [*a]", "a: &a {b: *a}", "a: *b", "a: 1\nb: 2\na: 3"),
        *(
            "x: .nan",
            "x: [-.inf]",
            "9" * 5000,
            "0x" + "f" * 5000,
            "1" + 400 * "0",
            "2020-99-99",
            "? [a]\n: b",
            '"\\ud800"',
        ),
        *(
            "!!python/object/apply:os.system [ls]",
            "!!int ''",
            "a: \x1b",
            "a\0",
            "%YAML 9.9\n---\na",
            "a: b: c",
        ),
        *("--- a\n--- b", '"\\ud800"', "!!float ''", "!!timestamp x", "<<: 1"),
    ],
)
def test_yaml_that_is_refused(text):
    with pytest.raises(ValueError, match=r"^[^\n]+$"):
        parse_yaml(text)


@pytest.mark.parametrize("text", ["", "a: [1, 2.5, x]", "b: &b {c: 1}\nd: *b\ne: {<<: *b, f: 2}", "2026-01-01", "~"])
def test_yaml_is_read_as_ever(text):
    assert parse_yaml(text) == yaml.safe_load(text)


def test_json_is_read_as_ever():
    assert parse_json('{"a": [1, -2.5e3, null, true, "é\\u0000"]}'.encode()) == {"a": [1, -2500.0, None, True, "é\0"]}
