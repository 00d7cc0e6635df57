"""The journal of an evaluation and its folder: crashes, damage, resuming."""

import json
from contextlib import nullcontext, suppress
from functools import partial

import pytest

from csg.datasets.label_sets import read_label_set
from csg.datasets.segmentation import SegmentationDataset
from csg.errors import InputError, UsageError
from csg_serve.evaluate import session
from csg_serve.evaluate.folder import check_same, find_folder, new_evaluation, read_spec, resumed_evaluation
from csg_serve.evaluate.journal import Journal
from csg_serve.evaluate.records import SCHEMA_VERSION, ClassificationAnswer, EvaluationSpec, Session, Skipped
from tests.helpers.evaluations import make_answer, make_spec

SCENES = SegmentationDataset("scenes", read_label_set("digit-scenes"), (), masks=(), tables=())


def fits(answer):
    """Answers of a classifier of two classes, on images of the first one."""
    return isinstance(answer, ClassificationAnswer) and answer.true == 0 and answer.predicted < 2


def started(images=5, out=None):
    """The folder of an evaluation with one answer that was interrupted."""
    with suppress(KeyboardInterrupt), new_evaluation(make_spec(images), out, fits) as journal:
        journal.start_session("localhost:8001")
        journal.add(make_answer(2, 0, 0))
        raise KeyboardInterrupt
    return journal.folder


@pytest.fixture
def journal(tmp_path):
    """A journal of five images, with the answers 3 and 1."""
    found = Journal(tmp_path, 5, fits)
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


def test_one_process_at_a_time(tmp_path):
    folder = started(out=tmp_path / "out")
    with resumed_evaluation(folder, make_spec(5), fits):
        for again in (resumed_evaluation(folder, make_spec(5), fits), new_evaluation(make_spec(5), folder, fits)):
            with pytest.raises(UsageError), again:
                pass
    with resumed_evaluation(folder, make_spec(5), fits) as journal:
        assert journal.done == 1


def test_evaluations_that_start_together_have_folders_of_their_own():
    with new_evaluation(make_spec(5), None, fits) as one, new_evaluation(make_spec(5), None, fits) as other:
        assert (one.folder.name, other.folder.name) == ("m-1-1", "m-1-2")


def test_an_incomplete_last_line_is_dropped(journal, tmp_path):
    journal.close()
    complete = journal.path.read_bytes()
    journal.path.write_bytes(complete + b'{"kind":"classification","index":4,"elap')
    again = Journal(tmp_path, 5, fits)
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
        (b'"index":3', b'"index":1' + 400 * b"0"),
        (b'"index":3', b'"index":"3"' + 10_000 * b"["),
        (b'"kind":"classification"', b'"kind":"guess"'),
        (b'"schema_version":1', b'"schema_version":2'),
        (b'"confidence":0.5', b'"confidence":NaN'),
        (b'"confidence":0.5', b'"confidence":1.5'),
        (b'"latency_ms":1.0', b'"latency_ms":1e999'),
        (b'"latency_ms":1.0', b'"latency_ms":1e300'),
        (b'"elapsed_s":0.0', b'"elapsed_s":-0.0'),
        (b'"true":0', b'"true":0,"more":0'),
        (b'"true":0', b'"true":1'),
        (b'"predicted":0', b'"predicted":2'),
        (b'"predicted":0', b'"predicted":-1'),
        (b'"server":"local', b'"server":"\\ud800local'),
        (b'"server":"local', b'"server":"\xfflocal'),
        (b'"server":"local', b'"server":"\0local'),
    ],
)
def test_a_damaged_line_is_named(journal, tmp_path, old, new):
    journal.close()
    content = journal.path.read_bytes()
    assert old in content
    journal.path.write_bytes(content.replace(old, new))
    with pytest.raises(InputError, match=r"journal\.jsonl (is damaged in )?line [12].*; remove the line, or start"):
        Journal(tmp_path, 5, fits)


@pytest.mark.parametrize(
    "change",
    [
        {"cells": [1, 1]},
        {"cells": [2, 1]},
        {"cells": [1]},
        {"cells": [-1, 1]},
        {"cells": [0, 10_000]},
        {"pixels": [4, -4]},
        {"pixels": [10**18, 10**18]},
        {"kind": "classification", "true": 0, "predicted": 0, "confidence": 0.5},
        {"mirrored": {"cells": [0], "pixels": [7]}},
    ],
)
def test_a_damaged_line_of_a_segmenter_is_named(tmp_path, change):
    line = {"kind": "segmentation", "index": 0, "elapsed_s": 0.1, "latency_ms": 1.0, "cells": [0, 1], "pixels": [3, 4]}
    for number, (tree, is_whole) in enumerate([(line, True), (line | change, False)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        (folder / "journal.jsonl").write_text(json.dumps(tree) + "\n")
        with nullcontext() if is_whole else pytest.raises(InputError, match="line 1"):
            Journal(folder, 5, partial(session.fits, SCENES, False)).close()


def test_a_line_that_appears_twice_counts_once(journal):
    journal.add(Skipped(index=0, elapsed_s=journal.elapsed_s, reason="broken"))
    whole = list(journal.records())
    lines = journal.path.read_bytes().splitlines(keepends=True)
    journal.path.write_bytes(b"".join([*lines, lines[2].replace(b"0.5", b"0.9"), *lines, lines[0]]))
    assert list(journal.records()) == whole


def test_a_failure_keeps_what_is_recorded_and_says_how_to_resume(capsys):
    folder = started()
    says = f"1 of 5 images are recorded; continue with `csg evaluate --resume --out {folder}`"
    assert says in capsys.readouterr().err
    with resumed_evaluation(folder, make_spec(5), fits) as journal:
        assert journal.pending() == [0, 1, 3, 4]


def test_a_failure_before_the_first_answer_leaves_nothing(tmp_path):
    with pytest.raises(KeyboardInterrupt), new_evaluation(make_spec(5), None, fits) as journal:
        journal.add(Skipped(index=1, elapsed_s=0, reason="broken"))
        raise KeyboardInterrupt
    assert not (tmp_path / "evaluations").exists()


def test_folders_are_numbered_and_the_newest_unfinished_one_is_resumed():
    first, second = (started() for _ in range(2))
    assert [folder.name for folder in (first, second)] == ["m-1-1", "m-1-2"]
    assert find_folder(None, {"data": None}) == (second, make_spec(5))
    (second / "result.json").write_text("{}")
    assert find_folder(None, {"data": ("s",)})[0] == first
    with pytest.raises(InputError, match="no unfinished evaluation with these options in evaluations/"):
        find_folder(None, {"model": "another"})


def test_what_is_given_again_has_to_be_the_same(tmp_path):
    folder = started(out=tmp_path / "out")
    assert find_folder(folder, {"data": ("s",), "tile": None})[1] == make_spec(5)
    with pytest.raises(UsageError, match="was started with --model m; leave out --model"):
        find_folder(folder, {"model": "n"})
    with pytest.raises(UsageError, match="holds an evaluation already"), new_evaluation(make_spec(5), folder, fits):
        pass


def test_images_that_moved_are_found_at_their_new_place():
    """The fingerprint tells whether they are the same; the folder then records the new place."""
    folder, moved = started(), make_spec(5).model_copy(update={"data": ("elsewhere",), "dataset": "elsewhere"})
    assert find_folder(None, {"data": ("elsewhere",)})[0] == folder
    with resumed_evaluation(folder, moved, fits) as journal:
        assert journal.done == 1
    assert read_spec(folder) == moved
    with (
        pytest.raises(InputError, match="not those that"),
        resumed_evaluation(folder, moved.model_copy(update={"fingerprint": "other"}), fits),
    ):
        pass


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"version": 2}, "measures version 1 of m, but the server has version 2"),
        ({"card": "other"}, "measures version 1 of m, but the server has another model"),
        ({"fingerprint": "other"}, "the images of d are not those that"),
    ],
)
def test_another_model_and_other_images_are_refused(tmp_path, change, message):
    spec = make_spec(5)
    check_same(tmp_path, spec, spec)
    with pytest.raises(InputError, match=message):
        check_same(tmp_path, spec, spec.model_copy(update=change))


@pytest.mark.parametrize(
    "content",
    ["", "[]", "null", "{" * 10_000, "\0", '{"version": 1e999}', "\udcff", '{"schema_version": 2}', '{"images": -1}'],
)
def test_a_damaged_specification_is_one_line(tmp_path, content):
    with pytest.raises(InputError, match="holds no evaluation"):
        read_spec(tmp_path)
    folder = started(out=tmp_path / "out")
    if content.startswith('{"'):
        content = json.dumps(json.loads((folder / "evaluation.json").read_text()) | json.loads(content))
    (folder / "evaluation.json").write_text(content, errors="surrogateescape")
    with pytest.raises(InputError, match="holds no evaluation"):
        read_spec(folder)


def test_names_that_are_not_utf_8_are_written_as_text(tmp_path):
    spec = EvaluationSpec(**{**make_spec(5).model_dump(), "data": ("caf\udce9",), "dataset": "caf\udce9"})
    with pytest.raises(InputError, match="is not UTF-8"):
        started(out=tmp_path / "caf\udce9")
    folder = started(out=tmp_path / "café")
    with resumed_evaluation(folder, spec, fits):
        assert read_spec(folder).data == ("caf\\xe9",)
