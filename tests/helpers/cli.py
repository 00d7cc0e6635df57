"""The command line as a script sees it: run it, and hold what it refuses to one line."""

import re
import subprocess
import sys

FREE_PORTS = ("--http-port", "0", "--grpc-port", "0", "--metrics-port", "0")


def csg(*args, cwd=None):
    return subprocess.run([sys.executable, "-m", "csg", *map(str, args)], capture_output=True, text=True, cwd=cwd)


def refused(done, code, *patterns):
    """One line that says what is wrong and what to do."""
    assert done.returncode == code, done.stderr
    errors = [line for line in done.stderr.splitlines() if line.startswith(("error", "defect", "Traceback"))]
    assert len(errors) == 1, done.stderr
    assert not done.stdout
    for pattern in patterns:
        assert re.search(pattern, errors[0]), errors[0]
