"""`csg doctor`: it reports with any of the extras, names what is wrong, and tells no secret."""

import contextlib
import json
import os
import socket
import subprocess
import sys
import tomllib

import pytest

from csg_serve.doctor import command, hardware, software
from csg_serve.doctor.report import Problem, ReportPart
from csg_serve.doctor.software import EXTRAS, SOURCES, extras
from csg_serve.doctor.surroundings import surroundings
from csg_serve.doctor.triton import servers, triton
from csg_serve.server.state import ServerState, write_state
from tests.helpers.cli import csg, refused

EVERYTHING = (
    *("torch", "torchvision", "timm", "onnx", "onnxruntime", "onnxscript", "openvino", "tensorrt_rtx", "tritonclient"),
    *("psutil", "aiohttp", "jinja2", "google", "scipy", "matplotlib", "tabulate", "safetensors", "huggingface_hub"),
)


def test_it_needs_no_extra_and_no_network(tmp_path):
    code = f"import sys; sys.modules.update(dict.fromkeys({EVERYTHING})); from csg_cli import main; main()"
    secret = {
        "HF_TOKEN": "hf_verysecret",
        "CSG_SECRET": "verysecret",
        "https_proxy": "http://me:verysecret@127.0.0.1:9",
    }
    done = subprocess.run(
        [sys.executable, "-c", code, "doctor", "--json"],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, **secret, "PYTHONPATH": str(SOURCES)},
    )
    found = json.loads(done.stdout)
    assert done.returncode == (3 if found["problems"] else 0), done.stderr
    assert list(found) == [
        *("software", "extras", "machine", "triton", "servers", "caches", "surroundings", "problems"),
    ]
    assert found["extras"]["hub"].startswith("lacks huggingface_hub: pip install -e '")
    assert found["servers"] == {"running": "not known without the extra serve"}
    assert found["surroundings"]["$https_proxy"] == "http://127.0.0.1:9"
    assert "verysecret" not in done.stdout + done.stderr


def test_what_is_wrong_is_said_with_exit_code_3(monkeypatch):
    parts = (lambda: ReportPart("a", {"b": "c"}), lambda: ReportPart("d", {}, [Problem("it broke", "mend it")] * 2))
    monkeypatch.setattr(command, "PARTS", parts)
    done = csg("doctor")
    assert "wrong: it broke; mend it" in done.stdout
    refused(type(done)(done.returncode, "", done.stderr), 3, "it broke, and 1 more; mend it")
    done = csg("doctor", "--json")
    assert json.loads(done.stdout)["problems"] == [{"what": "it broke", "do": "mend it"}] * 2
    monkeypatch.setattr(command, "PARTS", parts[:1])
    done = csg("doctor")
    assert (done.returncode, done.stdout.splitlines()[-1]) == (0, "nothing is wrong")


@pytest.mark.parametrize(
    ("limit", "said"),
    [
        ("LEAST_SHARED", "--shm-size"),
        ("LEAST_MEMORY", "smaller batches"),
        ("LEAST_DISK", "free some space"),
        ("LEAST_FILES", "ulimit"),
    ],
)
def test_too_little_of_something_is_a_problem(monkeypatch, limit, said):
    for name in ("LEAST_SHARED", "LEAST_MEMORY", "LEAST_DISK", "LEAST_FILES"):
        monkeypatch.setattr(hardware, name, 0)
    assert hardware.hardware().problems == []
    monkeypatch.setattr(hardware, limit, 2**62)
    problems = hardware.hardware().problems
    assert problems
    assert all(said in problem.advice for problem in problems)


MODULES = {
    "missing symbol": "raise ImportError('undefined symbol: x')",
    "killed": "import os; os.kill(os.getpid(), 9)",
    "hangs": "import time; time.sleep(600)",
    "ends": "raise SystemExit(0)",
    "no version": "print('csg doctor: not JSON')",
}


@pytest.mark.parametrize("kind", MODULES)
def test_a_package_that_can_not_be_imported_is_a_problem(tmp_path, monkeypatch, kind):
    (tmp_path / "torch.py").write_text(MODULES[kind])
    (tmp_path / "onnx.py").write_text("print('hello')")
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    monkeypatch.setattr(software, "IMPORT_S", 1 if kind == "hangs" else 60)
    said, problem = software._import(["onnx", "torch"])
    assert said == {"onnx": ""}
    assert problem.what.startswith("torch can't be imported: ")


def test_a_cache_that_the_server_can_not_start_from_is_a_problem(monkeypatch, tmp_path):
    monkeypatch.setenv("CSG_CACHE", str(tmp_path / "my cache"))
    monkeypatch.setenv("PATH", str(tmp_path))
    (problem,) = triton().problems
    assert "without spaces" in problem.advice


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        ("http://me:secret@box:3128", "http://box:3128"),
        ("me:secret@box:3128", "box:3128"),
        ("socks5h://secret@[::1]:9", "socks5h://[::1]:9"),
        ("http://me:sec@ret@box/path", "http://box"),
        ("http://[secret@box", "http://box"),
        ("http://box:3128", "http://box:3128"),
        ("localhost,.local", "localhost,.local"),
    ],
)
def test_a_proxy_is_shown_without_its_password(monkeypatch, value, shown):
    monkeypatch.setenv("HTTPS_PROXY", value)
    assert surroundings().facts["$HTTPS_PROXY"] == shown


def test_the_extras_are_those_of_the_package(monkeypatch):
    project = tomllib.loads((SOURCES / "pyproject.toml").read_text())["project"]
    assert set(EXTRAS) == set(project["optional-dependencies"]) - {"all", "server", "docs", "dev"}
    monkeypatch.setitem(EXTRAS, "timm", ("no.such.module",))
    assert extras().facts["timm"].startswith("lacks no.such.module: pip install -e ")
    assert extras().facts["serve"] == "installed"


def test_a_server_that_accepts_no_connection_is_a_problem(tmp_path):
    repository, token = tmp_path / "repository", f"csg-{'0' * 15}a-"
    repository.mkdir()
    with contextlib.ExitStack() as stack:
        sockets = [stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(3)]
        names = ("http", "grpc", "metrics")
        addresses = {n: f"127.0.0.1:{s.getsockname()[1]}" for n, s in zip(names, sockets, strict=True)}
        words = ["tritonserver", "-c", "import time; time.sleep(600)", f"--model-repository={repository}", token]
        process = subprocess.Popen(words, executable=sys.executable)
        stack.callback(process.wait)
        stack.callback(process.kill)
        state = ServerState(pid=process.pid, token=token, control="poll", drain_s=1, **addresses)
        write_state(repository, state)
        found = servers()
        assert f"{repository}, http 127.0.0.1" in found.facts[f"process {process.pid}"]
        assert not [one for one in found.problems if str(repository) in one.what]
        sockets[1].close()
        (problem,) = [one for one in servers().problems if str(repository) in one.what]
        assert problem.what.endswith(f"accepts no connection: grpc {addresses['grpc']}")
        assert f"csg serve --stop --repository {repository}" in problem.advice
