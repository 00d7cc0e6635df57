"""A tritonserver without `csg serve`, as others start it."""

import contextlib
import os
import signal
import socket
import subprocess
import time

from csg_serve.client.shared_memory import FOLDER
from csg_serve.triton.executable import find_triton


@contextlib.contextmanager
def triton(repository, *flags):
    """Addresses of a tritonserver on a repository: HTTP and gRPC."""
    with contextlib.ExitStack() as held:
        sockets = [held.enter_context(socket.socket()) for _ in range(3)]
        for one in sockets:
            one.bind(("127.0.0.1", 0))
        ports = [one.getsockname()[1] for one in sockets]
    found, token = find_triton(), f"csg-test-{os.getpid()}-{ports[0]}-"
    command = [str(found.executable), f"--model-repository={repository}", "--model-control-mode=none", *flags]
    command += [f"--backend-config=python,shm-region-prefix-name={token}"]
    command += [f"--backend-directory={found.backends}"] if found.backends else []
    for name, port in zip(("http", "grpc", "metrics"), ports, strict=True):
        command += [f"--{name}-address=127.0.0.1", f"--{name}-port={port}"]
    with repository.with_suffix(".log").open("wb") as log:
        process = subprocess.Popen(command, env=found.environment, stdout=log, stderr=log, start_new_session=True)
    try:
        deadline = time.monotonic() + 120
        while process.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", ports[1]), 1):
                break
            time.sleep(0.1)
        yield f"127.0.0.1:{ports[0]}", f"127.0.0.1:{ports[1]}"
    finally:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
        for left in FOLDER.glob(f"{token}*"):
            left.unlink(missing_ok=True)
