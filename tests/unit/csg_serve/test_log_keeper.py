"""The keeper of a server's log: what is written, how much, and that the server never waits for it."""

import os
import subprocess
import sys
import time
from pathlib import Path

import pytest

from csg_serve.server import log_keeper
from csg_serve.server.log_keeper import CHUNK_BYTES, MAX_BYTES, keep_log, older_part


def kept(text, log):
    """What is in the log after the text came through a pipe."""
    keeper = [sys.executable, "-I", log_keeper.__file__, str(log), "any-word"]
    subprocess.run(keeper, input=text, check=True, timeout=60)
    return log.read_bytes()


@pytest.mark.parametrize(
    ("text", "log"),
    [
        (b"", b""),
        (b"one\ntwo\n", b"one\ntwo\n"),
        (b"no end", b"no end"),
        (b"twice\ntwice\nother\n", b"twice\ntwice\nother\n"),
        (9 * b"same\n" + b"other\n", b"same\ncsg: the line above came 8 more times\nother\n"),
        (9 * b"same\n", b"same\ncsg: the line above came 8 more times\n"),
        (b"\xff\0\r\n\n\n\n", b"\xff\0\r\n\ncsg: the line above came 2 more times\n"),
        (300_000 * b"x", 300_000 * b"x"),
    ],
)
def test_what_a_log_holds(tmp_path, text, log):
    assert kept(text, tmp_path / "log") == log


def test_parts_of_a_long_line_are_not_repetitions(tmp_path):
    keeper = subprocess.Popen([sys.executable, "-I", log_keeper.__file__, str(tmp_path / "log")], stdin=subprocess.PIPE)
    for _ in range(4):
        keeper.stdin.write((CHUNK_BYTES + 1) * b"x")
        keeper.stdin.flush()
        time.sleep(0.2)
    keeper.communicate(b"end\n", timeout=60)
    assert (tmp_path / "log").read_bytes() == 4 * (CHUNK_BYTES + 1) * b"x" + b"end\n"


def test_a_million_times_the_same_line_are_two(tmp_path):
    written = kept(b"start\n" + 10**6 * b"[warn] Error from accept() call: Too many open files\n", tmp_path / "log")
    assert len(written) < 200
    assert b"999999 more times" in written


def test_the_newest_lines_are_kept_in_two_files_of_bounded_size(tmp_path):
    lines = b"".join(b"%09d %0100d\n" % (number, 0) for number in range(4 * MAX_BYTES // 111))
    newest = kept(lines, tmp_path / "log")
    older = older_part(tmp_path / "log").read_bytes()
    assert lines.endswith(older + newest)
    assert MAX_BYTES / 2 < len(older) <= MAX_BYTES
    assert len(newest) <= MAX_BYTES


def test_a_log_that_can_not_be_written_does_not_hold_up_the_server():
    source, sink = os.pipe()
    with os.fdopen(sink, "wb") as server:
        server.write(b"one\ntwo\n")
    keep_log(source, Path("/dev/full"))
    os.close(source)
