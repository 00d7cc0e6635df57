"""Atomic files, names, messages on one line, and the public names of csg."""

import subprocess
import sys

import pytest

import csg
from csg.errors import UsageError, one_line
from csg.files import atomic_directory, atomic_write, validate_name


def test_a_failed_folder_is_removed(tmp_path):
    with pytest.raises(RuntimeError), atomic_directory(tmp_path / "made") as fresh:
        (fresh / "part").write_text("x")
        raise RuntimeError
    assert list(tmp_path.iterdir()) == []


def test_a_failed_write_keeps_the_old_file(tmp_path):
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
def test_a_message_of_another_library_becomes_one_line(text, line):
    assert one_line(text, limit=20) == line


def test_public_names_are_imported_on_first_use():

    check = "import csg, sys; print('pydantic' in sys.modules); csg.read_bundle; print('pydantic' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["False", "True"]
    assert all(hasattr(csg, name) for name in csg.__all__)
    with pytest.raises(AttributeError, match="nothing"):
        _ = csg.nothing
