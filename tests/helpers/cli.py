"""The command line as a script sees it: run a command, and check that a refusal is one line."""

import contextlib
import io
import re
import signal
import subprocess
import sys
from dataclasses import dataclass
from unittest import mock

import csg_cli

FREE_PORTS = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")
CSG = (sys.executable, "-m", "csg")


@dataclass(frozen=True)
class Done:
    """A finished command, with the fields of `subprocess.CompletedProcess`."""

    returncode: int
    stdout: str
    stderr: str


def csg(*args, cwd="."):
    """Run a command in this process, which saves the seconds that a new one spends on imports.

    Returns:
        Done: exit code, standard output and standard error, as a shell would see them.
    """
    out, err, code = io.StringIO(), io.StringIO(), 0
    with (
        _signal_handlers_kept(),
        contextlib.chdir(cwd),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
        mock.patch("sys.argv", ["csg", *map(str, args)]),
    ):
        try:
            csg_cli.main()
        except SystemExit as end:
            code = end.code or 0
    return Done(code, out.getvalue(), err.getvalue())


@contextlib.contextmanager
def _signal_handlers_kept():
    kept = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)}
    try:
        yield
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)


def csg_process(*args, cwd=None):
    """Run a command in a process of its own: for commands that start servers, and where the process is the point."""
    return subprocess.run([*CSG, *map(str, args)], capture_output=True, text=True, cwd=cwd)


def refused(done, code, *patterns):
    """Check that a command failed with one line that says what is wrong and what to do, and printed no result.

    Args:
        done: what `csg` or `csg_process` returned.
        code: the exit code that the error has.
        patterns: regular expressions that the line has to match.
    """
    assert done.returncode == code, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith(("error", "internal error", "Traceback"))]
    assert len(errors) == 1, done.stderr
    assert "; " in errors[0], f"{errors[0]!r} does not say what to do"
    assert not done.stdout
    for pattern in patterns:
        assert re.search(pattern, errors[0]), errors[0]
