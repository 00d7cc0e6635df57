"""Errors of the machine: whatever library reports them, one line says which file, what is wrong and what to do."""

import errno
import os
import pickle
import sqlite3
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors import SafetensorError

from csg.errors import InputError, ServerError
from csg.files import atomic_directory, atomic_write
from csg.locks import new_folder
from csg.machine_errors import machine_error

NUMBERS = (
    "ENOSPC EACCES EPERM EROFS EDQUOT ENOTDIR EISDIR EEXIST ENAMETOOLONG ELOOP EIO EMFILE ENFILE ENOENT EFBIG ENXIO"
)


@pytest.mark.parametrize("name", NUMBERS.split())
def test_an_error_of_the_system_names_file_reason_and_remedy(name):
    number = getattr(errno, name)
    found = machine_error(OSError(number, os.strerror(number), "out/file"))
    assert isinstance(found, InputError)
    assert "out/file" in found.message
    assert found.hint


def raised(action):
    with pytest.raises(Exception) as caught:
        action()
    return caught.value


@pytest.fixture
def in_the_way(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    Path("file").write_text("")
    return Path("file")


@pytest.mark.parametrize(
    "write",
    [
        lambda path: atomic_write(path, b""),
        lambda path: new_folder(path, path.parent, "run").__enter__(),
        lambda path: atomic_directory(path).__enter__(),
    ],
)
@pytest.mark.parametrize("below", ["a", "a/b", "a/b/c.json"])
def test_a_file_in_the_place_of_a_folder_is_named(in_the_way, write, below):
    found = machine_error(raised(lambda: write(in_the_way / below)))
    assert "file is a file, not a folder" in found.message
    assert "--out" in found.hint


def test_a_temporary_name_is_not_shown(tmp_path):
    def fail():
        with atomic_directory(tmp_path / "made") as fresh:
            (fresh / "missing" / "file").write_text("")

    assert machine_error(raised(fail)).message.startswith(f"can't use {tmp_path}/made/missing/file")
    long = tmp_path / ("x" * 300)
    assert "name is too long" in machine_error(raised(lambda: atomic_write(long, b""))).message


@pytest.mark.parametrize("length", [60, 245, 255])
def test_every_name_that_the_file_system_takes_can_be_written(tmp_path, length):
    atomic_write(tmp_path / ("é" * (length // 2)), b"content")
    with atomic_directory(tmp_path / ("x" * length)) as fresh:
        (fresh / "file").write_text("")


@pytest.mark.parametrize(
    ("file", "hint"),
    [
        (Path(tempfile.gettempdir(), "tmpabcd", "model.onnx.data"), "TMPDIR"),
        (Path("~/.cache/torch/hub/a.pth").expanduser(), "TORCH_HOME"),
        (Path("cache/digits"), "CSG_CACHE"),
        (Path("runs/cls/a"), "--out"),
    ],
)
def test_the_remedy_fits_the_place(monkeypatch, file, hint):
    monkeypatch.setenv("CSG_CACHE", "cache")
    monkeypatch.delenv("TORCH_HOME", raising=False)
    found = machine_error(OSError(errno.ENOSPC, "No space left on device", str(file)))
    assert "the disk is full" in found.message
    assert hint in found.hint


def full_database(tmp_path):
    with sqlite3.connect(tmp_path / "cache.db") as base:
        base.execute("pragma max_page_count = 1")
        base.execute("create table images (name)")


LIBRARIES = {
    "torch: no memory for a tensor": lambda _: torch.empty(2**50),
    "numpy: no memory for an array": lambda _: np.empty(2**50),
    "sqlite: full": full_database,
    "sqlite: a file in the way": lambda _: sqlite3.connect("/dev/null/x"),
    "a group of an asynchronous command": lambda _: ExceptionGroup("", [ValueError(), OSError(28, "full", "x")]),
    "a loader process": lambda _: OSError("Caught OSError in worker process 0.\n[Errno 24] Too many open files"),
    "torch.save": lambda _: RuntimeError("[enforce fail at inline_container.cc] . No space left on device"),
    "a GPU": lambda _: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 MiB."),
    "cuBLAS": lambda _: RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling cublasCreate"),
    "threads": lambda _: RuntimeError("can't start new thread"),
}


@pytest.mark.parametrize("name", LIBRARIES)
def test_the_errors_of_other_libraries_are_recognised(tmp_path, name):
    try:
        error = LIBRARIES[name](tmp_path)
    except Exception as caught:
        error = caught
    found = machine_error(error)
    assert isinstance(found, InputError)
    assert found.hint
    assert "\n" not in str(found)


def test_the_cause_of_an_error_counts():
    try:
        try:
            raise OSError(errno.EROFS, "read-only", "a")
        except OSError as error:
            raise ValueError("can't write") from error
    except ValueError as error:
        assert "read-only" in machine_error(error).message


@pytest.mark.parametrize("error", [ConnectionResetError(104, "reset"), TimeoutError("timed out")])
def test_a_lost_connection_is_an_error_of_the_server(error):
    assert isinstance(machine_error(error), ServerError)


@pytest.mark.parametrize("error", [ValueError("x"), KeyError("disk"), SafetensorError("header"), OSError("bad image")])
def test_a_defect_stays_a_defect(error):
    assert machine_error(error) is None
    assert machine_error(pickle.loads(pickle.dumps(error))) is None


def test_a_link_that_leads_in_a_circle_is_named(tmp_path):
    """Path.resolve reports it as a RuntimeError."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(RuntimeError) as caught:
        (tmp_path / "loop").resolve()
    assert f"can't use {tmp_path / 'loop'}: its links lead in a circle" in str(machine_error(caught.value))
