"""Damaged and hostile files into every reader: an answer or one line, no hang, and nothing outside the file's folder.

benchmarks/fuzz.py does the same for as long as one likes, guided by coverage.
"""

import re
import resource
from functools import cache

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from csg.bundle import read_bundle
from csg.card import parse_card
from csg.errors import InputError, UsageError
from csg.files import validate_name
from csg_serve.repository.deploy import deploy
from csg_serve.repository.rollback import roll_back
from tests.helpers.fuzz_targets import HOSTILE, TARGETS, seeds
from tests.helpers.tiny_bundle import write_colour_bundle

MANY = {"image": 600, "card": 600, "config": 150, "bundle": 250}  # examples; the slower a target, the fewer
MEMORY = 2**30  # that the decoders may take beside what the tests before took, bytes
whole_files = cache(seeds)

place = st.integers(0, 2**16)
edit = st.one_of(
    st.tuples(st.just("put"), place, st.binary(min_size=1, max_size=4)),
    st.tuples(st.just("insert"), place, st.sampled_from(HOSTILE)),
    st.tuples(st.just("value"), place, st.sampled_from(HOSTILE)),
    st.tuples(st.just("cut"), place, place),
    st.tuples(st.just("double"), place, place),
)


def edited(data, edits):
    for kind, at, what in edits:
        at %= len(data) + 1
        if kind == "put":
            data = data[:at] + what + data[at + len(what) :]
        elif kind == "insert":
            data = data[:at] + what + data[at:]
        elif kind == "value":  # of JSON and of protobuf's text: what stands behind a colon
            before, colon, rest = data[at:].partition(b":")
            end = min((found for sign in (b",", b"\n", b"}") if (found := rest.find(sign)) >= 0), default=0)
            data = data[:at] + before + colon + what + rest[end:]
        else:
            end = at + what % (len(data) - at + 1)
            data = data[:at] + data[end:] if kind == "cut" else data[:end] + data[at:]
    return data


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of protobuf, at some of what is no text of its
@pytest.mark.timeout(120)  # a hang shows where it hangs
@pytest.mark.parametrize(
    ("target", "examples"),
    [*((target, 25) for target in TARGETS), *(pytest.param(*many, marks=pytest.mark.slow) for many in MANY.items())],
)
def test_damaged_and_hostile_files(target, examples):
    @settings(max_examples=examples, suppress_health_check=list(HealthCheck))
    @given(st.sampled_from(whole_files(target)), st.lists(edit, max_size=6), st.binary(max_size=24))
    def attempt(whole, edits, more):
        TARGETS[target](edited(whole, edits) + more)

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    attempt()
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < MEMORY


@pytest.mark.parametrize("target", TARGETS)
def test_whole_files_are_taken(target):
    """What is fuzzed above is not refused at the door."""
    files = whole_files(target)
    assert all(TARGETS[target](whole) for whole in (files[:1] if target == "bundle" else files))


FOUND = {
    "not a number": (
        b'"mean": [\n   0.0',
        b'"mean": [\n   NaN',
        "normalisation.mean.0: Input should be a finite number",
    ),
    "infinite": (b'"tolerance": 0.0', b'"tolerance": 1e999', "parity.tolerance: Input should be a finite number"),
    "beyond 64 bits": (b"   -1,\n    3", b"   -1,\n    3" + 40 * b"0", r"outputs.0.shape.1: Input should be less than"),
    "no shape": (b"   -1,\n    3\n", b"", r"outputs.0.shape: Tuple should have at least 1 item"),
}


@pytest.mark.parametrize("kind", FOUND)
def test_cards_that_could_not_be_served_are_refused(kind):
    old, new, says = FOUND[kind]
    whole = whole_files("card")[0]
    assert whole.count(old) == 1
    with pytest.raises(InputError, match=says):
        parse_card(whole.replace(old, new), "card.json")


def test_a_plan_has_a_largest_batch():
    card = re.sub(rb'("profile": )\[\[.*?\]\]', rb"\1[[], [], []]", whole_files("card")[2])
    with pytest.raises(InputError, match=r"engine\.profile\.0"):
        parse_card(card, "card.json")


@pytest.mark.parametrize("name", ["card.json", "model.onnx", "labels.txt", "SHA256SUMS"])
def test_a_bundle_reads_nothing_from_elsewhere(name, tmp_path):
    """Not even the right contents; a link to the bundle is fine."""
    bundle = write_colour_bundle(tmp_path / "bundle")
    (bundle.path / name).rename(tmp_path / name)
    (bundle.path / name).symlink_to(tmp_path / name)
    with pytest.raises(InputError, match=rf"{name} is a link to a file outside the bundle"):
        read_bundle(bundle.path)
    (tmp_path / name).replace(bundle.path / name)
    (tmp_path / "link").symlink_to(bundle.path)
    assert read_bundle(tmp_path / "link").card == bundle.card


def test_a_configuration_that_names_no_version_is_said(tmp_path):
    bundle, repository = write_colour_bundle(tmp_path / "bundle"), tmp_path / "repository"
    deploy(bundle, repository)
    file = repository / "colour" / "config.pbtxt"
    file.write_text(file.read_text().replace("versions: 1", ""))
    for act in (lambda: roll_back(repository, None, None), lambda: deploy(bundle, repository)):
        with pytest.raises(InputError, match=r"config\.pbtxt names no version to serve"):
            act()


@given(
    st.one_of(st.text(), st.from_regex(r"[A-Za-z0-9._/-]{0,120}"), st.sampled_from(["..", ".", "a\n", "a/b", "a\0"]))
)
def test_a_plain_name_is_one_folder_and_nothing_else(name):
    try:
        plain = validate_name(name, "model name")
    except UsageError as error:
        assert "\n" not in str(error)
    else:
        assert plain == name
        assert plain.isascii()
        assert not set(plain) & set("/\\\0\n \"'$`;&|*?<>")
        assert not plain.startswith((".", "-"))
