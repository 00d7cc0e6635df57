"""Folders to work in: processes that start together get one each, and two never work in one."""

import subprocess
import sys

import pytest

from csg.errors import InputError, UsageError
from csg.files import LOCK, atomic_directory, locked, new_folder

CLAIM = """
import sys
from pathlib import Path
from csg.files import new_folder
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


def test_a_folder_is_removed_if_nothing_was_written_into_it(tmp_path):
    with pytest.raises(ZeroDivisionError), new_folder(None, tmp_path, "run"):
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
