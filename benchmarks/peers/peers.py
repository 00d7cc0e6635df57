"""The servers that csg's is compared with: packages, start command and settings of each."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import psutil

from csg.console import log
from csg.extras import install_command
from csg.files import cache_dir

ROOT = Path(__file__).parent.parent.parent
CORES = len(os.sched_getaffinity(0))
Settings = dict[str, str]


@dataclass(frozen=True)
class Peer:
    """A server."""

    name: str
    """Shown in the table."""
    requirements: tuple[str, ...]
    """Packages for its environment, besides those that all environments have."""
    command: tuple[str, ...]
    """Start command; {bin} is the environment's folder of executables, {port} and {workers} are filled in."""
    settings: Sequence[Settings]
    """Settings that a trial selects from."""
    grpc: bool = False
    """Whether it speaks Triton's gRPC protocol; otherwise HTTP."""
    field: str = ""
    """Field of the multipart form that contains the file; empty: the file is the whole body."""

    @property
    def scaled(self) -> bool:
        """Whether it decodes with csg.images."""
        return self.name == SCALED_FASTAPI


def one_process(**more: str) -> list[Settings]:
    """One session with all cores, with waiting and with spinning threads."""
    return [{"WORKERS": "1", "THREADS": str(CORES), "SPIN": spin, **more} for spin in "01"]


def process_a_core(**more: str) -> list[Settings]:
    """One process per core, each with a session of one thread."""
    return [{"WORKERS": str(CORES), "THREADS": "1", "SPIN": "0", **more}]


UVICORN = (
    "{bin}/uvicorn benchmarks.peers.fastapi_server:app --host 127.0.0.1 --port {port} --workers {workers}"
    " --log-level warning"
)
SCALED_FASTAPI = "FastAPI with csg.images"
"""FastAPI with csg's own decoding at a reduced scale: what is left of csg's lead is the server's."""
PEERS = (
    Peer(
        "FastAPI",
        ("fastapi==0.165.0", "uvicorn[standard]==0.54.0"),
        tuple(UVICORN.split()),
        [*one_process(), *process_a_core()],
    ),
    Peer(
        SCALED_FASTAPI,
        ("fastapi==0.165.0", "uvicorn[standard]==0.54.0"),
        tuple(UVICORN.split()),
        [*one_process(SCALED="1"), *process_a_core(SCALED="1")],
    ),
    Peer(
        "LitServe",
        ("litserve==0.2.19", "python-multipart==0.0.34"),
        ("{bin}/python", "-m", "benchmarks.peers.litserve_server"),
        [*one_process(), *process_a_core()],
        field="request",
    ),
    Peer(
        "BentoML",
        ("bentoml==1.4.40",),
        ("{bin}/bentoml", "serve", "benchmarks.peers.bentoml_server:Peer", "--host", "127.0.0.1", "--port", "{port}"),
        [*one_process(BATCHED="1"), *process_a_core(BATCHED="1"), *process_a_core()],
        field="images",
    ),
    Peer(
        "MLServer",
        ("mlserver==1.7.1", "uvloop==0.21.0"),  # it does not start with uvloop 0.22
        ("{bin}/python", "-m", "benchmarks.peers.mlserver_server"),
        [*one_process(BATCHED="1"), *process_a_core(BATCHED="1"), *process_a_core()],
        grpc=True,
    ),
    Peer(
        "PyTriton",
        ("nvidia-pytriton==0.7.0",),
        ("{bin}/python", "-m", "benchmarks.peers.pytriton_server"),
        one_process(),
        grpc=True,
    ),
)


def environment_of(peer: Peer) -> Path:
    """A peer's virtual environment, created on first use, with the ONNX Runtime and Pillow of csg's own server."""
    pins = [f"onnxruntime=={_runtime_version()}", f"pillow=={metadata.version('pillow')}", "pydantic", "platformdirs"]
    pins += peer.requirements
    kind = peer.name.split()[0].lower()
    folder = cache_dir() / "peers" / f"{kind}-python{sys.version_info.major}.{sys.version_info.minor}"
    installed = folder / "requirements.txt"
    if not installed.is_file() or installed.read_text().splitlines() != pins:
        log(f"installing {', '.join(pins)} into {folder}")
        subprocess.run([sys.executable, "-m", "venv", "--clear", str(folder)], check=True)
        subprocess.run([str(folder / "bin/python"), "-m", "pip", "install", "--quiet", *pins], check=True)
        installed.write_text("\n".join(pins))
    return folder


@contextmanager
def started(peer: Peer, settings: Settings, model: Path, log: Path) -> Iterator[tuple[str, int]]:
    """Run a server, which may not answer yet; stops all its processes at the end.

    Yields:
        Its HOST:PORT and its process id.
    """
    ports = _free_ports(3)
    folder = environment_of(peer)
    values = {"bin": str(folder / "bin"), "port": str(ports[0]), "workers": settings["WORKERS"]}
    settings = settings | {"MODEL": str(model), "PORT": str(ports[0])}
    settings |= {"HTTP_PORT": str(ports[1]), "METRICS_PORT": str(ports[2])}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PEER_")}
    environment |= {f"PEER_{name}": value for name, value in settings.items()}
    environment["PYTHONPATH"] = str(ROOT)
    environment["LD_LIBRARY_PATH"] = str(Path(sys.base_prefix, "lib"))  # PyTriton's backend looks for libpython
    environment["PATH"] = f"{folder / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment["BENTOML_DO_NOT_TRACK"] = "True"
    command = [part.format(**values) for part in peer.command]
    with log.open("ab") as out:
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=out, stderr=out, start_new_session=True)
    try:
        yield f"127.0.0.1:{ports[0]}", process.pid
    finally:
        _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """Send SIGTERM to the process and its descendants, SIGKILL to those left after 10 s."""
    try:
        root = psutil.Process(process.pid)
        family = [root, *root.children(recursive=True)]
    except psutil.NoSuchProcess:
        family = []
    process.terminate()
    _, left = psutil.wait_procs(family, timeout=10)
    for one in left:
        one.kill()
    process.wait()


def _free_ports(count: int) -> list[int]:
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def _runtime_version() -> str:
    for name in ("onnxruntime-gpu", "onnxruntime"):
        try:
            return metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    raise SystemExit(f"this needs ONNX Runtime: {install_command('local')}")
