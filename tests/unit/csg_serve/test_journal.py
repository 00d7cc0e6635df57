"""The journal of an evaluation and its folder: crashes, damage, resuming."""

import json

import pytest

from csg.errors import InputError, UsageError
from csg_serve.evaluate.folder import check_same, create_folder, find_folder, open_journal, read_spec
from csg_serve.evaluate.journal import Journal
from csg_serve.evaluate.records import SCHEMA_VERSION, Session, Skipped
from tests.helpers.evaluations import make_answer, make_spec


@pytest.fixture(autouse=True)
def current_folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def journal(tmp_path):
    """A journal of five images, with the answers 3 and 1."""
    found = Journal(tmp_path, 5)
    found.start_session("localhost:8001")
    for index in (3, 1):
        found.add(make_answer(index, 0, 0))
    yield found
    found.close()


def test_records_come_back_as_they_were_written(journal):
    journal.add(Skipped(index=0, elapsed_s=journal.elapsed_s, reason="not an image file"))
    session, *answers = journal.records()
    assert isinstance(session, Session)
    assert session.server == "localhost:8001"
    assert answers[:2] == [make_answer(3, 0, 0), make_answer(1, 0, 0)]
    assert answers[2].reason == "not an image file"
    assert (journal.pending(), journal.done) == ([2, 4], 3)


def test_every_line_is_json_of_a_known_kind(journal):
    first, *rest = map(json.loads, journal.path.read_text().splitlines())
    assert (first["kind"], first["schema_version"]) == ("session", SCHEMA_VERSION)
    assert {line["kind"] for line in rest} == {"classification"}


def test_one_process_at_a_time(journal, tmp_path):
    with pytest.raises(UsageError, match="another process is working on"):
        Journal(tmp_path, 5)
    journal.close()
    Journal(tmp_path, 5).close()


def test_an_incomplete_last_line_is_dropped(journal, tmp_path):
    journal.close()
    complete = journal.path.read_bytes()
    journal.path.write_bytes(complete + b'{"kind":"classification","index":4,"elap')
    again = Journal(tmp_path, 5)
    again.add(make_answer(0, 0, 0))
    again.close()
    assert journal.path.read_bytes().startswith(complete)
    assert [getattr(record, "index", None) for record in again.records()] == [None, 3, 1, 0]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        (b'"index":3', b'"in'),
        (b'"index":3', b'"index":5'),
        (b'"index":3', b'"index":-1'),
        (b'"kind":"classification"', b'"kind":"guess"'),
        (b'"schema_version":1', b'"schema_version":2'),
        (b'"confidence":0.5', b'"confidence":NaN'),
        (b'"true":0', b'"true":0,"more":0'),
    ],
)
def test_a_damaged_line_is_named(journal, tmp_path, old, new):
    journal.close()
    content = journal.path.read_bytes()
    assert old in content
    journal.path.write_bytes(content.replace(old, new))
    with pytest.raises(InputError, match=r"journal\.jsonl is damaged in line [12]; start a new evaluation"):
        Journal(tmp_path, 5)


def test_a_failure_keeps_what_is_recorded_and_says_how_to_resume(capsys):
    folder = create_folder(make_spec(5), None)
    with pytest.raises(KeyboardInterrupt), open_journal(folder, 5) as journal:
        journal.start_session("localhost:8001")
        journal.add(make_answer(2, 0, 0))
        raise KeyboardInterrupt
    assert (
        f"1 of 5 images are recorded; continue with `csg evaluate --resume --out {folder}`" in capsys.readouterr().err
    )
    with open_journal(folder, 5) as journal:
        assert journal.pending() == [0, 1, 3, 4]


def test_a_failure_before_the_first_answer_leaves_nothing(tmp_path):
    folder = create_folder(make_spec(5), None)
    with pytest.raises(KeyboardInterrupt), open_journal(folder, 5):
        raise KeyboardInterrupt
    assert list((tmp_path / "evaluations").iterdir()) == []


def test_folders_are_numbered_and_the_newest_unfinished_one_is_resumed():
    first, second = (create_folder(make_spec(5), None) for _ in range(2))
    assert [folder.name for folder in (first, second)] == ["m-1-1", "m-1-2"]
    assert find_folder(None, {"data": None}) == (second, make_spec(5))
    (second / "result.json").write_text("{}")
    assert find_folder(None, {"data": ("s",)})[0] == first
    with pytest.raises(InputError, match="no unfinished evaluation with these options in evaluations/"):
        find_folder(None, {"model": "another"})


def test_what_is_given_again_has_to_be_the_same(tmp_path):
    folder = create_folder(make_spec(5), tmp_path / "out")
    assert find_folder(folder, {"data": ("s",), "tile": None})[1] == make_spec(5)
    with pytest.raises(UsageError, match="was started with --data s; leave out --data"):
        find_folder(folder, {"data": ("t",)})
    with pytest.raises(UsageError, match="holds an evaluation already"):
        create_folder(make_spec(5), folder)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "measures version 1 of m, but the server has version 2"),
        ({"card": "other"}, "measures version 1 of m, but the server has another model"),
        ({"fingerprint": "other"}, "the images of d have changed since"),
    ],
)
def test_another_model_and_other_images_are_refused(tmp_path, change, message):
    spec = make_spec(5)
    check_same(tmp_path, spec, spec)
    with pytest.raises(InputError, match=message):
        check_same(tmp_path, spec, spec.model_copy(update=change))


def test_a_folder_of_another_format_is_refused(tmp_path):
    with pytest.raises(InputError, match="holds no evaluation"):
        read_spec(tmp_path)
    folder = create_folder(make_spec(5), tmp_path / "out")
    spec = json.loads((folder / "evaluation.json").read_text())
    (folder / "evaluation.json").write_text(json.dumps(spec | {"schema_version": SCHEMA_VERSION + 1}))
    with pytest.raises(InputError, match="holds no evaluation"):
        read_spec(folder)
