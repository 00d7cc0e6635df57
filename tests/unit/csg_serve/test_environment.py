"""How the environment of the wheel's server is created, and what a user is told where it can't be."""

import errno
import shutil
from concurrent.futures import ThreadPoolExecutor

import pytest

from csg.errors import InputError, ServerError
from csg_serve.triton import environment, pythons
from csg_serve.triton.environment import clean_environment, server_environment
from tests.helpers.fake_python import SUPPORTED, fake_python

OFFLINE = 'echo "WARNING: Retrying after connection broken by NewConnectionError"; echo "ERROR: No match"; exit 1'
NO_WHEEL = 'echo "ERROR: No matching distribution found for onnxruntime"; exit 1'
FULL = 'echo "ERROR: Could not install packages due to an OSError: [Errno 28] No space left on device"; exit 1'


@pytest.fixture(autouse=True)
def machine(tmp_path, monkeypatch):
    """A machine with the Pythons in the folder `path`, and an empty cache."""
    for module in (pythons, environment):
        monkeypatch.setattr(module, "MINORS", SUPPORTED)
    monkeypatch.setenv("PATH", f"{tmp_path / 'path'}:/usr/bin:/bin")
    monkeypatch.setenv("CSG_CACHE", str(tmp_path / "cache"))
    return tmp_path / "path"


def calls(machine, word):
    return [line for line in (machine / "calls").read_text().splitlines() if word in line]


def left(tmp_path):
    """What is in the cache, but for locks."""
    return [path.name for path in (tmp_path / "cache").iterdir() if path.suffix != ".lock"]


def test_it_is_created_once_with_the_stub_of_its_python(machine):
    fake_python(machine)
    with ThreadPoolExecutor(4) as pool:
        found = set(pool.map(server_environment, [True] * 4))
    assert len(found) == len(calls(machine, "-m venv")) == 1
    (one,) = found
    assert (one.backends / "python/triton_python_backend_stub").read_text() == "stub\n"
    assert one.library.exists()
    assert not (one.folder / "downloads").exists()


def test_another_takes_the_wheels_of_the_first(machine):
    fake_python(machine)
    first = server_environment(True)
    (machine / "calls").unlink()
    first.python.unlink()  # as if its Python had been removed
    assert server_environment(True).python.exists()
    downloads = calls(machine, " download ")
    assert downloads
    assert all("--no-index" in line and "server-wheels" in line for line in downloads)


@pytest.mark.parametrize(
    ("download", "reason"), [(OFFLINE, "pip can't reach a package index"), (NO_WHEEL, "No matching distribution")]
)
def test_packages_that_cannot_be_had_are_one_line_that_names_the_output(machine, tmp_path, download, reason):
    fake_python(machine, download=download)
    with pytest.raises(ServerError, match=rf"can't download the packages: {reason}.*\.log") as raised:
        server_environment(False)
    assert "\n" not in str(raised.value)
    (output,) = left(tmp_path)
    assert "ERROR: No" in (tmp_path / "cache" / output).read_text()
    fake_python(machine)
    server_environment(False)
    assert not (tmp_path / "cache" / output).exists()


def test_a_full_disk_is_an_error_of_the_cache(machine, tmp_path):
    fake_python(machine, download=FULL)
    with pytest.raises(OSError, match="No space left") as raised:
        server_environment(False)
    assert raised.value.errno == errno.ENOSPC
    assert str(tmp_path / "cache") in raised.value.filename
    assert left(tmp_path) == []


def test_what_a_killed_process_left_is_removed(machine, tmp_path):
    fake_python(machine)
    first = server_environment(False).folder
    name = first.name
    shutil.rmtree(first)
    (tmp_path / "cache" / f".{name}.abc123" / "downloads").mkdir(parents=True)
    assert server_environment(False).folder.name == name
    assert sorted(left(tmp_path)) == [name, "server-wheels"]


@pytest.mark.parametrize("name", ["my cache", "it's", "a;b", "$HOME"])
def test_a_path_that_a_shell_would_split_is_refused_first(machine, tmp_path, monkeypatch, name):
    fake_python(machine)
    monkeypatch.setenv("CSG_CACHE", str(tmp_path / name))
    with pytest.raises(InputError, match="set CSG_CACHE to a path without spaces"):
        server_environment(False)
    assert not (tmp_path / name).exists()


def test_the_user_s_python_variables_do_not_reach_the_server(monkeypatch):
    for name in ("PYTHONPATH", "PYTHONHOME", "PYTHONSTARTUP", "VIRTUAL_ENV", "VIRTUAL_ENV_PROMPT"):
        monkeypatch.setenv(name, "/other")
    assert not [name for name in clean_environment() if name.startswith(("PYTHON", "VIRTUAL"))]
