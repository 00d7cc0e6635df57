"""The answers of people: one line each, whatever crashes, and merged."""

import json

import pytest

from csg.errors import InputError, UsageError
from csg_serve.evaluate.labelling.answers import (
    Disagreement,
    LabelledItems,
    label_file,
    label_files,
    merge,
    open_labels,
    read_labels,
    read_merged,
)

ITEMS = LabelledItems(5, ("dog", "cat", "\N{DOG FACE} <b>"))


def test_every_answer_is_a_line_and_undo_is_one_too(tmp_path):
    with open_labels(tmp_path, "ana", ITEMS) as file:
        file.answer(3, "dog")
        file.answer(0, None)
        file.answer(4, "\N{DOG FACE} <b>")
        assert (file.undo(), file.undo()) == (4, 0)
        assert file.labels == {3: "dog"}
    lines = [json.loads(line) for line in file.path.read_text().splitlines()]
    assert [(line["item"], line["class"], line.get("taken_back")) for line in lines] == [
        (3, "dog", None), (0, None, None), (4, "\N{DOG FACE} <b>", None), (4, None, True), (0, None, True),
    ]  # fmt: skip
    assert read_labels(file.path, ITEMS) == {3: "dog"}


def test_undo_without_an_answer_writes_nothing(tmp_path):
    with open_labels(tmp_path, "ana", ITEMS) as file:
        assert file.undo() is None
    assert file.path.read_bytes() == b""


def test_an_answer_is_replaced_by_a_later_one(tmp_path):
    with open_labels(tmp_path, "ana", ITEMS) as file:
        file.answer(1, "dog")
        file.answer(2, "dog")
        file.answer(1, "cat")
        assert file.undo() == 1
    assert read_labels(file.path, ITEMS) == {2: "dog"}


@pytest.mark.parametrize("torn", [b"{", b'{"item": 2, "class": "dog", "at": "2026-', b"\xff\xfe", b"\0" * 40])
def test_a_torn_last_line_is_repaired(tmp_path, torn):
    with open_labels(tmp_path, "ana", ITEMS) as file:
        file.answer(1, "dog")
    whole = file.path.read_bytes()
    file.path.write_bytes(whole + torn)
    assert read_labels(file.path, ITEMS) == {1: "dog"}
    with open_labels(tmp_path, "ana", ITEMS) as file:
        assert file.path.read_bytes() == whole
        file.answer(2, "cat")
    assert read_labels(file.path, ITEMS) == {1: "dog", 2: "cat"}


@pytest.mark.parametrize(
    "line",
    [
        "", "[]", "no json", '{"item": 1}', '{"item": -1, "class": "dog", "at": "2026-01-31T09:30:00Z"}',
        '{"item": 5, "class": "dog", "at": "2026-01-31T09:30:00Z"}',
        '{"item": 1, "class": "bird", "at": "2026-01-31T09:30:00Z"}',
        '{"item": 1, "class": "dog", "at": "2026-01-31T09:30:00"}',
        '{"item": 1, "class": "dog", "at": "2026-01-31T09:30:00Z", "more": 1}',
    ],
)  # fmt: skip
def test_a_damaged_line_is_named(tmp_path, line):
    good = '{"item": 0, "class": "dog", "at": "2026-01-31T09:30:00Z"}\n'
    label_file(tmp_path, "ana").write_text(f"{good}{line}\n{good}")
    with pytest.raises(InputError, match=r"labels-ana\.jsonl .*line 2"):
        read_merged(tmp_path, ITEMS)
    with pytest.raises(InputError, match="line 2"), open_labels(tmp_path, "ana", ITEMS):
        pass


def test_one_process_writes_the_file_of_a_person(tmp_path):
    with (
        open_labels(tmp_path, "ana", ITEMS),
        open_labels(tmp_path, "ben", ITEMS),
        pytest.raises(UsageError, match="ana is labelling already"),
        open_labels(tmp_path, "ana", ITEMS),
    ):
        pass
    with open_labels(tmp_path, "ana", ITEMS):
        assert list(label_files(tmp_path)) == ["ana", "ben"]


@pytest.mark.parametrize("name", ["", "../x", "a/b", "a b", ".a", "a" * 101, "\N{DOG FACE}"])
def test_the_name_of_a_person_is_no_path(tmp_path, name):
    with pytest.raises(UsageError, match="name of a person"), open_labels(tmp_path, name, ITEMS):
        pass
    assert not list(tmp_path.iterdir())


def test_a_full_disk_leaves_the_file_as_it_was(tmp_path, monkeypatch):
    with open_labels(tmp_path, "ana", ITEMS) as file:
        file.answer(1, "dog")
        whole = file.path.read_bytes()

        def full(_):
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patch:
            patch.setattr("os.fsync", full)
            with pytest.raises(InputError, match="No space left"):
                file.answer(2, "cat")
        assert (file.path.read_bytes(), file.labels) == (whole, {1: "dog"})
        file.answer(2, "cat")
    assert read_labels(file.path, ITEMS) == {1: "dog", 2: "cat"}


def test_merged_answers_have_the_class_that_most_gave():
    ana = {0: "dog", 1: "dog", 2: None, 3: "dog", 4: None}
    ben = {0: "dog", 1: "cat", 2: None, 3: "cat", 4: "cat"}
    merged = merge({"ana": ana, "ben": ben, "cleo": {3: "cat"}})
    assert merged.labels == {0: "dog", 2: None, 3: "cat", 4: "cat"}
    assert merged.disagreements == (
        Disagreement(1, {"ana": "dog", "ben": "cat"}, None),
        Disagreement(3, {"ana": "dog", "ben": "cat", "cleo": "cat"}, "cat"),
    )
    assert merged.twice == 3


def test_files_from_several_machines_merge(tmp_path):
    for person, label in (("ana", "dog"), ("ben", "cat")):
        with open_labels(tmp_path, person, ITEMS) as file:
            file.answer(0, label)
            file.answer(1 + (person == "ben"), label)
    merged = read_merged(tmp_path, ITEMS)
    assert merged.labels == {1: "dog", 2: "cat"}
    assert [one.item for one in merged.disagreements] == [0]


def test_no_file_no_answers(tmp_path):
    assert read_merged(tmp_path, ITEMS).labels == {}
