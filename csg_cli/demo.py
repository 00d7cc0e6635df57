"""`csg demo`: the whole pipeline on the embedded digits, each command as a user would type it."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path

from csg.console import log
from csg.errors import CsgError, InputError, UsageError
from csg.files import LOCK
from csg.locks import lock
from csg_cli.options import examples

EXAMPLES = examples("csg demo", "mkdir demo && cd demo && csg demo")
FREE_PORTS = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")


class StepFailed(CsgError):
    """A command of the demo failed, and has printed why."""


def demo() -> None:
    """Run the whole pipeline on the embedded digits, in the current folder; the server is stopped at the end."""
    with lock(Path(LOCK)) as free:
        if not free:
            raise UsageError("another demo is running in this folder", "run it in another folder")
        try:
            _demo()
        finally:
            Path(LOCK).unlink(missing_ok=True)


def _demo() -> None:
    started = time.monotonic()
    _run("train", "cls")
    _run("export", "--fp16")
    _run("deploy")
    server = json.loads(_run("serve", "--detach", "--json", *FREE_PORTS, capture=True))
    try:
        _run("evaluate", "--server", server["grpc"])
    finally:
        _run("serve", "--stop")
    log(f"the demo took {time.monotonic() - started:.0f} s")


def _run(*args: str, capture: bool = False) -> str:
    log("")
    log(f"$ csg {' '.join(args)}")
    done = subprocess.run([sys.executable, "-m", "csg", *args], stdout=subprocess.PIPE if capture else None, text=True)
    if done.returncode:
        error = StepFailed(f"csg {' '.join(args)} ended with exit code {done.returncode}", "see the lines above")
        error.exit_code = done.returncode if done.returncode > 0 else InputError.exit_code  # < 0: it was killed
        raise error
    return done.stdout or ""
