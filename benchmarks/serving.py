"""What the benchmarks of serving share: bundles of torchvision's networks, a served repository, its processes."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

FREE_PORTS = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")


def csg(*args: object, cwd: Path) -> str:
    """Standard output of a command that must work."""
    command = [sys.executable, "-m", "csg", *map(str, args)]
    return subprocess.run(command, cwd=cwd, check=True, stdout=subprocess.PIPE, text=True).stdout


def export_torchvision(name: str, folder: Path) -> Path:
    """A bundle with random weights, for speed alone; what is there already is not made again."""
    bundle = folder.resolve() / "bundles" / name
    if not bundle.is_dir():
        csg("export", "--torchvision", name, "--weights", "none", "--out", bundle, cwd=folder)
    return bundle


@contextmanager
def serving(folder: Path, *bundles: Path) -> Iterator[dict[str, Any]]:
    """A Triton with these bundles, deployed for the Python backend: `pid`, `http`, `grpc`, `metrics`."""
    for bundle in bundles:
        csg("deploy", bundle, "--backend", "python", cwd=folder)
    state: dict[str, Any] = json.loads(csg("serve", "--detach", "--json", *FREE_PORTS, cwd=folder))
    try:
        yield state
    finally:
        csg("serve", "--stop", cwd=folder)


def family(pid: int) -> list[psutil.Process]:
    """A process and all below it."""
    root = psutil.Process(pid)
    return [root, *root.children(recursive=True)]
