"""Folders to work in: processes that start together get one each, and two never work in one."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from csg.errors import InputError, UsageError
from csg.files import LOCK, atomic_directory
from csg.locks import cached_folder, locked, new_folder, working_in, writing

CLAIM = """
import sys
from pathlib import Path
from csg.locks import new_folder
with new_folder(None, Path(sys.argv[1]), "run") as folder:
    (folder / "file").write_text("")
    print(folder.name)
"""


def test_processes_that_start_together_get_a_folder_each(tmp_path):
    started = [subprocess.Popen([sys.executable, "-c", CLAIM, tmp_path], stdout=subprocess.PIPE) for _ in range(6)]
    names = [process.communicate()[0].decode().strip() for process in started]
    assert sorted(names) == [f"run-{number}" for number in range(1, 7)]


def test_a_folder_in_use_is_refused_and_free_again_afterwards(tmp_path):
    with new_folder(tmp_path / "a", tmp_path, "run") as folder:
        (folder / "file").write_text("")
        with pytest.raises(UsageError, match="another process is working in"), locked(folder):
            pass
        with pytest.raises(UsageError, match="another process"), new_folder(folder, tmp_path, "run"):
            pass
    with locked(folder):
        pass
    with pytest.raises(UsageError, match="not empty"), new_folder(folder, tmp_path, "run"):
        pass


FORK = """
import multiprocessing, os, sys, time
from pathlib import Path
from csg.locks import locked
def work():
    print(os.getpid(), flush=True)
    time.sleep(60)
with locked(Path(sys.argv[1])):
    multiprocessing.get_context("fork").Process(target=work).start()
    time.sleep(60)
"""


def test_a_killed_process_holds_no_lock_though_its_children_live(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", FORK, tmp_path], stdout=subprocess.PIPE)
    child = int(process.stdout.readline())
    try:
        process.kill()
        process.wait()
        with locked(tmp_path):
            os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)


def test_a_folder_is_removed_if_nothing_was_written_into_it(tmp_path):
    with pytest.raises(ZeroDivisionError), new_folder(None, tmp_path, "run"):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    with pytest.raises(ZeroDivisionError), new_folder(None, tmp_path / "runs" / "cls", "run"):
        raise ZeroDivisionError
    assert not list(tmp_path.iterdir())
    with pytest.raises(ZeroDivisionError), new_folder(None, tmp_path, "run") as folder:
        (folder / "file").write_text("")
        raise ZeroDivisionError
    assert sorted(path.name for path in folder.iterdir()) == [LOCK, "file"]


def test_an_atomic_folder_takes_the_place_of_a_claimed_one_but_of_no_other(tmp_path):
    with new_folder(None, tmp_path, "run") as folder, atomic_directory(folder) as fresh:
        (fresh / "file").write_text("1")
    assert [path.name for path in folder.iterdir()] == ["file"]
    with pytest.raises(InputError, match="exists already"), atomic_directory(folder) as fresh:
        (fresh / "file").write_text("2")
    with atomic_directory(folder, shared=True) as fresh:
        (fresh / "file").write_text("2")
    assert (folder / "file").read_text() == "1"
    assert [path.name for path in tmp_path.iterdir()] == ["run-1"]


FILL = """
import sys, time
from csg.locks import cached_folder
def fill(folder):
    print("filling", flush=True)
    sys.stdin.read(1)
    (folder / "file").write_text(sys.argv[1])
print((cached_folder("drawn", fill) / "file").read_text())
"""


@pytest.fixture
def filling(tmp_path, monkeypatch):
    """Start a process that fills a folder of the cache when it is told to."""
    monkeypatch.setenv("CSG_CACHE", str(tmp_path / "cache"))
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return lambda name: subprocess.Popen([sys.executable, "-c", FILL, name], text=True, **pipes)


def test_a_second_process_waits_for_the_one_that_fills_the_cache(filling):
    first = filling("one")
    assert first.stdout.readline() == "filling\n"
    second = filling("two")
    assert "waiting for another process" in second.stderr.readline()
    assert first.communicate("x")[0] == "one\n"
    assert second.communicate("x")[0] == "one\n"


def test_a_killed_process_does_not_block_the_cache(filling):
    first = filling("one")
    first.stdout.readline()
    first.send_signal(signal.SIGKILL)
    first.wait()
    assert filling("two").communicate("x")[0] == "filling\ntwo\n"


def test_a_filled_cache_is_read_where_it_cannot_be_written(tmp_path, monkeypatch):
    monkeypatch.setenv("CSG_CACHE", str(tmp_path))
    cached_folder("drawn", lambda folder: (folder / "file").write_text(""))
    (tmp_path / ".drawn.lock").unlink()
    cached_folder("drawn", lambda folder: pytest.fail("filled twice"))
    assert not (tmp_path / ".drawn.lock").exists()


def test_the_processes_that_draw_end_with_the_one_that_started_them(tmp_path):
    draw = "import sys; from pathlib import Path; from csg_train.data.synthetic_digits import SYNTHETIC_DIGITS as d;"
    draw += "d.write(Path(sys.argv[1]), 10**6, 0, lambda done: print(done, flush=True))"
    process = subprocess.Popen([sys.executable, "-c", draw, tmp_path / "x"], stdout=subprocess.PIPE)
    process.stdout.readline()
    children = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text().split()
    process.kill()
    process.communicate(timeout=60)  # returns when nobody holds standard output any more
    assert children


def test_one_process_at_a_time_writes_a_file(tmp_path):
    with writing(tmp_path / "a.npz"):
        with pytest.raises(UsageError, match=r"another process is writing .*a\.npz"), writing(tmp_path / "a.npz"):
            pass
        with writing(tmp_path / "b.npz"):
            pass
    with writing(tmp_path / "a.npz"):
        pass
    assert not list(tmp_path.iterdir())


def test_a_folder_that_was_used_stays_and_an_empty_one_goes(tmp_path):
    with working_in(tmp_path / "a") as folder:
        (folder / "file").write_text("")
    with pytest.raises(ZeroDivisionError), working_in(folder):
        raise ZeroDivisionError
    assert (folder / "file").exists()
    with pytest.raises(ZeroDivisionError), working_in(tmp_path / "b"):
        raise ZeroDivisionError
    assert not (tmp_path / "b").exists()
