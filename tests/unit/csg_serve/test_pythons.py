"""Which Python of the machine the wheel's server runs with."""

import pytest

from csg.errors import ServerError
from csg_serve.triton import pythons
from csg_serve.triton.pythons import newest_python
from tests.helpers.fake_python import SUPPORTED, fake_python


@pytest.fixture(autouse=True)
def bare_machine(tmp_path, monkeypatch):
    """A machine without a Python for the server."""
    monkeypatch.setattr(pythons, "MINORS", SUPPORTED)
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/usr/bin:/bin")
    monkeypatch.setenv("PYENV_ROOT", str(tmp_path / "pyenv"))
    monkeypatch.setenv("UV_PYTHON_INSTALL_DIR", str(tmp_path / "uv"))


@pytest.mark.parametrize("place", ["path", "pyenv/versions/3.99.4/bin", "uv/cpython-3.99.4-linux-x86_64-gnu/bin"])
def test_the_newest_is_found_on_path_and_with_pyenv_and_uv(tmp_path, place):
    fake_python(tmp_path / "path", 98)
    newest = fake_python(tmp_path / place, 99)
    found = newest_python()
    assert (found.executable, found.minor) == (newest, 99)
    assert found.library == newest.with_name("libpython3.99.so.1.0")


def test_one_that_cannot_do_it_is_passed_over(tmp_path):
    fake_python(tmp_path / "path", 99, has_venv=False)
    older = fake_python(tmp_path / "path", 98)
    assert newest_python().executable == older


OTHER_VERSION = """echo '[3, 11, "/usr/bin/python3.11", true, "/lib"]'"""


@pytest.mark.parametrize("script", ["exit 127", "echo pyenv: version not set; exit 1", OTHER_VERSION, ""])
def test_a_shim_that_runs_no_python_is_passed_over(tmp_path, script):
    shim = tmp_path / "path" / "python3.99"
    shim.parent.mkdir()
    shim.write_text(f"#!/bin/sh\n{script}\n")
    shim.chmod(0o755)
    with pytest.raises(ServerError, match="this machine has none of them"):
        newest_python()


def test_none_is_one_line_that_says_what_those_found_lack(tmp_path):
    fake_python(tmp_path / "path", 99, has_venv=False)
    fake_python(tmp_path / "path", 98, library=False)
    with pytest.raises(ServerError) as raised:
        newest_python()
    assert "python3.99 has no venv (Debian: apt install python3.99-venv)" in str(raised.value)
    assert "python3.98 has no libpython3.98.so" in str(raised.value)
    assert "uv python install 3.12" in str(raised.value)
