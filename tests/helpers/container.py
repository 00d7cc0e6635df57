"""The conditions of a container, without one: namespaces, a read-only root, user 1000, no capabilities.

What a container's image brings is bound from this machine: the system's folders, the Python environment of the tests,
and /opt/tritonserver with the tritonserver of this machine, as docs/deploy/Dockerfile.cpu arranges it. Needs root.
"""

import contextlib
import os
import shlex
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

import psutil

SYSTEM = ("/usr", "/bin", "/sbin", "/lib", "/lib64", "/etc")
DEVICES = ("null", "zero", "full", "random", "urandom")
USER = ("setpriv", "--reuid=1000", "--regid=1000", "--clear-groups", "--bounding-set=-all", "--inh-caps=-all")
USER += ("--no-new-privs", "--")


@dataclass(frozen=True)
class Conditions:
    """What a container gets."""

    mounts: dict[str, Path]
    """Folders of this machine, by their path inside; read-only."""

    image: tuple[Path, ...]
    """Folders that belong to the image, at the same path inside; read-only."""

    environment: dict[str, str] = field(default_factory=dict)
    """Environment variables."""

    writable: tuple[str, ...] = ()
    """The paths of those mounts that are not read-only."""

    shm_mib: int = 64
    """Size of /dev/shm. 64 MiB: what Docker and Kubernetes give by themselves."""


class Container:
    """A running container."""

    def __init__(self, conditions, process, log):
        self._environment, self.process, self._log = conditions.environment, process, log

    @property
    def log(self):
        """What its processes have written."""
        return self._log.read_text(errors="replace")

    @property
    def main(self):
        """Process 1 inside, as a process of this machine."""
        children = psutil.Process(self.process.pid).children()
        assert children, self.log
        return children[0]

    def execute(self, *command, timeout=60):
        """Run a command inside, as kubelet and `docker exec` do; returns the finished process."""
        process = self.start(*command)
        out, err = process.communicate(timeout=timeout)
        return subprocess.CompletedProcess(command, process.returncode, out, err)

    def start(self, *command):
        """Start a command inside; returns the process."""
        inside = ["nsenter", f"--target={self.main.pid}", "--mount", "--pid", "--net", "--ipc", "--root", "--wd", "--"]
        words = [*inside, *_as_user(self._environment), *map(str, command)]
        return subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def wait(self, timeout):
        """Wait for its end; returns the exit code."""
        return self.process.wait(timeout)


@contextlib.contextmanager
def container(conditions, command, tmp_path):
    """A container that runs a command while the block runs."""
    root, log = tmp_path / "root", tmp_path / "container.log"
    root.mkdir()
    words = ["unshare", "--mount", "--pid", "--net", "--ipc", "--uts", "--fork", "--kill-child", "sh", "-euc"]
    with log.open("wb") as output:
        process = subprocess.Popen([*words, _script(conditions, root, command)], stdout=output, stderr=output)
    try:
        while process.poll() is None and not _is_in(process, root):
            time.sleep(0.01)
        yield Container(conditions, process, log)
    finally:
        with contextlib.suppress(psutil.Error):  # --kill-child has no effect once process 1 has become another user
            for first in psutil.Process(process.pid).children():
                first.kill()  # and with it every process inside
        process.kill()
        process.wait()


def _is_in(process, root):
    """Whether process 1 of a container has its root, which is when its command starts."""
    with contextlib.suppress(OSError, psutil.Error):
        children = psutil.Process(process.pid).children()
        return [Path(f"/proc/{child.pid}/root").readlink() for child in children] == [root]
    return False


def _script(conditions, root, command):
    """The shell script of process 1: mounts, then the command in its place."""
    lines = ["mount --make-rprivate /", "ip link set lo up", f"mount -t tmpfs -o mode=755 tmpfs {root}"]

    def make(path, options):
        lines.append(f"mkdir -p {root}{path}; mount {options} {root}{path}")

    for path in filter(os.path.exists, SYSTEM):
        if Path(path).is_symlink():
            lines.append(f"cp -P {path} {root}{path}")
        else:
            _bind(make, path, path)
    make("/tmp", "-t tmpfs -o mode=1777,size=64m tmpfs")
    make("/dev", "-t tmpfs -o mode=755 tmpfs")
    make("/dev/shm", f"-t tmpfs -o mode=1777,size={conditions.shm_mib}m tmpfs")
    for name in DEVICES:
        lines.append(f"touch {root}/dev/{name}; mount --bind /dev/{name} {root}/dev/{name}")
    make("/proc", "-t proc proc")
    for path in conditions.image:
        _bind(make, path, path)
    for path, source in conditions.mounts.items():
        _bind(make, source, path, read_only=path not in conditions.writable)
    lines.append(f"mount -o remount,ro {root}")
    words = ["chroot", root, *_as_user(conditions.environment), *command]
    return "\n".join([*lines, f"exec {shlex.join(map(str, words))}"])


def _bind(make, source, path, read_only=True):
    make(path, f"--bind {source}")
    if read_only:
        make(path, "-o remount,bind,ro")


def _as_user(environment):
    """The words that start a command as the container's user."""
    return [*USER, "env", "-i", *(f"{name}={value}" for name, value in environment.items())]


def python_folders():
    """The folders of the Python that runs the tests, with its environment."""
    return (Path(sys.base_prefix), Path(sys.prefix))
