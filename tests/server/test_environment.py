"""`csg serve` from other environments than the server's own."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from csg_serve.server.state import read_state
from tests.conftest import ROOT
from tests.helpers.broken_images import GOOD
from tests.helpers.cli import FREE_PORTS, csg
from tests.helpers.served import serving
from tests.helpers.tiny_bundle import COLOURS


def newer_python():
    """A Python that the server can't run with, on PATH or of pyenv; None if there is none that starts."""
    of_pyenv = [str(path) for path in Path.home().glob(".pyenv/versions/3.1[34].*/bin/python")]
    for path in filter(None, [*(shutil.which(f"python3.{minor}") for minor in (14, 13)), *of_pyenv]):
        if subprocess.run([path, "-c", ""], capture_output=True).returncode == 0:
            return path
    return None


NEWER = newer_python()


def right(grpc_address):
    """Whether the pictures of three colours are told apart."""
    from csg_serve.client.client import Client

    return [answer.label for answer in Client(grpc_address, "colour").predict(GOOD)] == [*COLOURS]


@pytest.mark.slow
def test_the_user_s_packages_and_variables_do_not_reach_the_server(colour_repository, tmp_path, monkeypatch):
    for name in ("onnxruntime", "triton_python_backend_utils"):
        (tmp_path / "own").mkdir(exist_ok=True)
        (tmp_path / "own" / f"{name}.py").write_text("raise ImportError('the one of the user')")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(ROOT), str(tmp_path / "own")]))
    monkeypatch.setenv("VIRTUAL_ENV", str(tmp_path / "own"))
    with serving(colour_repository) as server:
        assert right(server["grpc"])
    assert not list(colour_repository.rglob("*.pyc"))


@pytest.mark.slow
@pytest.mark.skipif(NEWER is None, reason="needs Python 3.13 or 3.14")
def test_csg_runs_with_a_python_that_the_server_cannot_run_with(colour_repository, tmp_path):
    subprocess.run([NEWER, "-m", "venv", tmp_path / "venv"], check=True)
    python = tmp_path / "venv/bin/python"
    source = tmp_path / "source"
    for package in ("csg", "csg_cli", "csg_train", "csg_export", "csg_serve"):
        shutil.copytree(ROOT / package, source / package)
    for file in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / file, source)
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--no-compile", f"{source}[serve]"], check=True)
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    command = [python, "-m", "csg", "serve", "--detach", "--repository", colour_repository, *map(str, FREE_PORTS)]
    subprocess.run(command, check=True, env=clean)
    try:
        assert right(read_state(colour_repository).grpc)
    finally:
        assert csg("serve", "--stop", "--repository", colour_repository).returncode == 0
