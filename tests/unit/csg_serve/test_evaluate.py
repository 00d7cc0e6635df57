"""`csg evaluate` from opening to the results, against a small server: figures, resuming, what is refused."""

import asyncio
import json
import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import csg.console
import csg_serve.client.pool
import csg_serve.evaluate.session
from csg.console import progress_bar
from csg.errors import InputError, ServerError, UsageError
from csg_serve.client.endpoints import Servers
from csg_serve.evaluate.command import evaluate, evaluate_until_signal, show
from csg_serve.evaluate.records import ClassificationResult
from csg_serve.evaluate.session import EvaluateOptions
from tests.helpers.evaluations import TIMES
from tests.helpers.image_files import colour_folders
from tests.helpers.small_server import SmallServer, running
from tests.helpers.tiny_bundle import COLOURS


@pytest.fixture
def data(tmp_path):
    """Ten images for each colour, two of them of another colour."""

    def colour(name, number):
        return COLOURS[(COLOURS.index(name) + (number < 2)) % 3]

    return str(colour_folders(tmp_path / "data", 10, colour))


def evaluated(server, **options):
    """The report of an evaluation."""

    async def run():
        async with running(server):
            return await evaluate(EvaluateOptions(source=Servers((server.address,)), **options))

    return asyncio.run(run())


def figures(report):
    return report.to_result(None).model_dump(exclude=TIMES)


def test_the_figures_are_those_of_the_images(data, tmp_path):
    report, page = evaluated(SmallServer(), data=(data,))
    assert page is None
    assert report.scores.accuracy == 0.8
    np.testing.assert_array_equal(report.scores.confusion, [[8, 2, 0], [0, 8, 2], [2, 0, 8]])
    assert (report.progress.answered, report.progress.skipped, report.progress.sessions) == (30, 0, 1)
    written = ClassificationResult.model_validate_json((report.folder / "result.json").read_bytes())
    assert written == report.to_result(None)
    assert report.folder.resolve() == tmp_path / "evaluations" / "colour-1-1"
    kinds = [json.loads(line)["kind"] for line in (report.folder / "journal.jsonl").read_text().splitlines()]
    assert kinds == ["session", *["classification"] * 30]


def test_ordered_records_the_images_in_order(data):
    report, _ = evaluated(SmallServer(), data=(data,), ordered=True)
    lines = (report.folder / "journal.jsonl").read_text().splitlines()[1:]
    assert [json.loads(line)["index"] for line in lines] == list(range(30))


def test_an_interrupted_evaluation_ends_with_the_same_figures(data, monkeypatch, capsys):
    monkeypatch.setattr(csg_serve.client.pool, "RETRY_BUDGET_S", 0.3)
    expected, _ = evaluated(SmallServer(), data=(data,))
    failing = SmallServer()
    failing.requests_until_stop = 3
    with pytest.raises(ServerError, match="did not answer"):
        evaluated(failing, data=(data,))
    assert "of 30 images are recorded; continue with `csg evaluate --resume" in capsys.readouterr().err
    server = SmallServer()
    report, _ = evaluated(server, resume=True)
    assert figures(report) == figures(expected)
    assert report.progress.sessions == 2
    assert report.folder.name == "colour-1-2"
    assert 0 < server.requests < 8
    with pytest.raises(InputError, match="there is no unfinished evaluation"):
        evaluated(SmallServer(), resume=True)


def test_a_finished_evaluation_gets_its_page_without_a_request(data, tmp_path):
    first, _ = evaluated(SmallServer(), data=(data,), out=tmp_path / "out")
    server = SmallServer()
    report, page = evaluated(server, resume=True, out=tmp_path / "out", report=True)
    assert server.requests == 0
    assert page == tmp_path / "out" / "report.html"
    assert "80.00 %" in page.read_text()
    assert figures(report) == figures(first)


def test_an_unreadable_image_stops_or_is_counted(data, tmp_path):
    (tmp_path / "data" / "green" / "9.png").write_bytes(b"broken")
    with pytest.raises(InputError, match=r"green/9\.png.*--on-unreadable skip"):
        evaluated(SmallServer(), data=(data,), ordered=True)
    report, _ = evaluated(SmallServer(), data=(data,), on_unreadable="skip")
    assert (report.progress.answered, report.progress.skipped) == (29, 1)


def test_options_of_segmenters_are_refused_for_a_classifier(data):
    for options in ({"tile": 64}, {"labels": "camvid11"}):
        with pytest.raises(UsageError, match="colour is not a segmenter; leave out --labels and --tile"):
            evaluated(SmallServer(), data=(data,), **options)


def test_logits_that_are_not_finite_are_an_error(data):
    server = SmallServer()
    server.logits = lambda pixels: np.full((len(pixels), 3), np.nan, np.float32)
    with pytest.raises(ServerError, match="answers wrongly: the logits of colour are not finite; check its bundle"):
        evaluated(server, data=(data,))


def test_images_that_moved_are_named_on_resume(data, tmp_path, monkeypatch):
    monkeypatch.setattr(csg_serve.client.pool, "RETRY_BUDGET_S", 0.3)
    expected, _ = evaluated(SmallServer(), data=(data,), out=tmp_path / "whole")
    failing = SmallServer()
    failing.requests_until_stop = 3
    with pytest.raises(ServerError):
        evaluated(failing, data=(data,))
    (tmp_path / "data").rename(tmp_path / "moved")
    with pytest.raises(InputError, match=r"the images of evaluations/colour-1-1 are not at .*data; name their place"):
        evaluated(SmallServer(), resume=True)
    report, _ = evaluated(SmallServer(), resume=True, data=(str(tmp_path / "moved"),))
    assert figures(report) == figures(expected)
    assert json.loads((report.folder / "evaluation.json").read_text())["data"] == [str(tmp_path / "moved")]


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_signal_to_end_keeps_what_is_recorded(data, number, capsys):
    server = SmallServer()
    server.delay_s = 0.2

    async def run():
        async with running(server):
            run = asyncio.create_task(
                evaluate_until_signal(EvaluateOptions(source=Servers((server.address,)), data=(data,) * 20))
            )
            while server.requests < 20:
                await asyncio.sleep(0.01)
            os.kill(os.getpid(), number)
            await run

    with pytest.raises(asyncio.CancelledError):
        asyncio.run(run())
    assert "images are recorded; continue with `csg evaluate --resume" in capsys.readouterr().err


def test_names_of_any_bytes_and_markup_are_shown_as_text(tmp_path, capsys):
    hostile = tmp_path / "[red]real\x1b[31m <b>\udce9"
    for colour in COLOURS:
        (hostile / colour).mkdir(parents=True)
        Image.new("RGB", (9, 9), "red").save(hostile / colour / "[bold]caf\udce9\n<script>.png")
    (hostile / "red" / "broken\udce9.png").write_bytes(b"broken")
    report, page = evaluated(
        SmallServer(), data=(str(hostile),), out=tmp_path / "[b]", report=True, on_unreadable="skip"
    )
    show(report, page)
    printed = "".join(capsys.readouterr())
    shown = "[red]real\\x1b[31m <b>\\xe9"
    assert f"colour version 1 on {shown}" in printed
    assert f"{shown}/red/broken\\xe9.png" in printed
    assert "\x1b" not in printed
    written = page.read_text()
    assert "[bold]caf\\xe9\\n&lt;script&gt;.png" in written
    assert "<script" not in written
    assert json.loads((report.folder / "result.json").read_text())["folder"].endswith("/[b]")


def test_how_the_images_were_read_is_said_and_kept_in_the_page(data, capsys):
    for number in range(2):
        Path(data, f"{number}.<x>").touch()
    _, page = evaluated(SmallServer(), data=(data,), report=True)
    assert "data: 2 files passed over: 2 .<x>" in capsys.readouterr().err
    assert "<dd>2 files passed over: 2 .&lt;x&gt;</dd>" in page.read_text()


def test_without_a_terminal_there_are_lines_of_progress(capsys, monkeypatch):
    monkeypatch.setattr(csg.console, "LINE_S", 0)
    with progress_bar("m version 1", 3000, 1000) as advance:
        for _ in range(2):
            advance(1000)
    assert capsys.readouterr().err == "m version 1: 2,000 of 3,000, 0:00:00 left\n"
