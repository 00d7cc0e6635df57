"""Card, bundle, files and metrics: what the stages share."""

import json
import subprocess
import sys

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sklearn.metrics import accuracy_score, balanced_accuracy_score

import csg
from csg.bundle import newest_bundle, read_bundle, write_bundle
from csg.card import parse_card
from csg.errors import InputError, UsageError, VerificationError, one_line
from csg.files import atomic_directory, atomic_write, validate_name
from csg.metrics import classification_scores
from tests.helpers.tiny_bundle import tiny_card, write_colour_bundle


@pytest.fixture
def bundle(tmp_path):
    return write_colour_bundle(tmp_path / "bundles" / "one")


def test_a_bundle_comes_back_as_it_was_written(bundle):
    assert read_bundle(bundle.path) == bundle
    assert bundle.labels.read_text().split() == list(bundle.card.classes)
    assert newest_bundle(bundle.path.parent) == bundle.path


@pytest.mark.parametrize("name", ["card.json", "model.onnx", "labels.txt"])
def test_a_changed_file_is_refused(bundle, name):
    file = bundle.path / name
    file.write_bytes(file.read_bytes()[:-1] + b"!")
    with pytest.raises(VerificationError, match=name):
        read_bundle(bundle.path)


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"0" * 64 + b"  ../../etc/passwd\n"])
def test_sums_that_say_nothing_are_refused(bundle, content):
    (bundle.path / "SHA256SUMS").write_bytes(content)
    with pytest.raises(VerificationError, match=r"card\.json does not match"):
        read_bundle(bundle.path)


@pytest.mark.parametrize("name", ["model.plan", "model.onnx.data"])
def test_a_file_smuggled_in_is_refused(bundle, name):
    (bundle.path / name).write_bytes(b"anything")
    with pytest.raises(VerificationError, match=name):
        read_bundle(bundle.path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.sampled_from(["card.json", "model.onnx", "labels.txt"]), st.floats(0, 1, exclude_max=True), st.integers(1, 255)
)
def test_no_changed_byte_and_no_cut_goes_unnoticed(bundle, name, where, by):
    file = bundle.path / name
    whole = file.read_bytes()
    place = int(where * len(whole))
    for content in (whole[:place], whole[:place] + bytes([whole[place] ^ by]) + whole[place + 1 :]):
        file.write_bytes(content)
        with pytest.raises(VerificationError, match=name):
            read_bundle(bundle.path)
    file.write_bytes(whole)
    assert read_bundle(bundle.path) == bundle


@pytest.mark.parametrize("name", ["card.json", "model.onnx", "labels.txt", "SHA256SUMS"])
def test_a_missing_file_is_named(bundle, name):
    (bundle.path / name).unlink()
    with pytest.raises(InputError, match=name):
        read_bundle(bundle.path)


def test_a_bundle_is_never_written_over(bundle):
    with pytest.raises(InputError, match="already exists"):
        write_bundle(bundle.path, bundle.card, {})


def test_a_card_of_the_future_is_refused_in_one_line():
    tree = json.loads(tiny_card().to_json())
    with pytest.raises(InputError, match=r"newer csg.*schema_version 3.*update csg"):
        parse_card(json.dumps(tree | {"schema_version": 3, "something": "new"}), "the card")
    with pytest.raises(InputError, match="schema_version"):
        parse_card(json.dumps(tree | {"schema_version": "one"}), "the card")
    with pytest.raises(InputError, match="the card"):
        parse_card(b"\xff{", "the card")


@pytest.mark.parametrize("field", ["a\nb", "a\r\nb", "a\u2028b"])
def test_a_line_break_in_what_a_user_gave_does_not_break_the_error(field):
    card = json.loads(tiny_card().to_json()) | {field: 1}
    with pytest.raises(InputError) as caught:
        parse_card(json.dumps(card), "card.json")
    assert "a b: Extra inputs are not permitted" in str(caught.value)
    assert len(str(caught.value).splitlines()) == 1


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_a_card_holds_finite_numbers(number):
    text = tiny_card().to_json().replace('"tolerance":0.0', f'"tolerance":{number}')
    with pytest.raises(InputError, match=r"parity\.tolerance: Input should be a finite number"):
        parse_card(text, "the card")


def test_a_folder_that_fails_half_way_leaves_nothing(tmp_path):
    with pytest.raises(RuntimeError), atomic_directory(tmp_path / "made") as fresh:
        (fresh / "part").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_write_bytes_replaces_whole_files_only(tmp_path):
    file = tmp_path / "file"
    atomic_write(file, b"old")
    with pytest.raises(TypeError):
        atomic_write(file, "no bytes")  # type: ignore[arg-type]
    assert file.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [file]


@pytest.mark.parametrize("name", ["", "..", "../x", "a/b", ".hidden", "a b", "x" * 101, "a\n", "-rf"])
def test_names_that_could_be_paths_are_refused(name):
    with pytest.raises(UsageError):
        validate_name(name, "model name")


@given(st.lists(st.tuples(st.integers(0, 3), st.integers(0, 3)), min_size=1, max_size=50))
def test_scores_are_scikit_learns(pairs):
    true, predicted = np.array(pairs).T
    scores = classification_scores(true, predicted, 4)
    assert scores.accuracy == pytest.approx(accuracy_score(true, predicted))
    present = np.unique(true)
    slow = {c: np.mean([p == c for t, p in pairs if t == c]) for c in present}
    assert scores.mean_class_accuracy == pytest.approx(np.mean(list(slow.values())))
    assert {c: scores.per_class[c] for c in present} == pytest.approx(slow)
    assert np.isnan(scores.per_class[[c for c in range(4) if c not in present]]).all()
    if set(predicted) <= set(present):
        assert scores.mean_class_accuracy == pytest.approx(balanced_accuracy_score(true, predicted))


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("one\n  two\t three\u2028four", "one two three four"),
        (ValueError("a\nb"), "a b"),
        (TimeoutError(), "TimeoutError"),
        ("x" * 20, "x" * 20),
        ("x" * 21, "x" * 17 + "..."),
    ],
)
def test_a_foreign_message_becomes_one_line(text, line):
    assert one_line(text, limit=20) == line


def test_public_names_are_imported_on_first_use():

    check = "import csg, sys; print('pydantic' in sys.modules); csg.read_bundle; print('pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
    assert all(hasattr(csg, name) for name in csg.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = csg.nothing
