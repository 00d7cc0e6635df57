"""The processes of Triton's Python backend, one for each instance of a model, and which of them died.

When Triton loads a model again it ends the processes of the earlier load itself, and on a busy machine they stay dead
for seconds until it collects them. They are not to be taken for processes that died: loading the model once more would
end the next ones in the same way, for ever.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

import psutil

LOAD_S = 60
"""Seconds in which a load that was asked for has new processes; after them a death is reported again."""


@dataclass(frozen=True)
class Stub:
    """A process that runs an instance of a model."""

    script: Path
    """<repository>/<model>/<version>/model.py."""
    instance: tuple[str, ...]
    """Its command line but for the names of shared memory: equal for one instance in two loads of its version."""
    started: float
    """When it was started, in seconds of the system's clock."""


@dataclass(frozen=True)
class Load:
    """A load of a version that was asked for."""

    newest: float
    """When the newest process of the version was started before it, as `Stub.started`."""
    until: float
    """The end of the time for it, of time.monotonic()."""


class Stubs:
    """The processes of all instances.

    Args:
        server: tritonserver.
        token: what the names of their shared memory begin with.

    Example:
        ``Stubs(psutil.Process(state.pid), state.token).died()`` is empty at the first look, and as long as all live.
    """

    def __init__(self, server: psutil.Process, token: str):
        self.server, self.token = server, token
        self.known: dict[int, Stub] = {}
        self.dead: set[int] = set()
        self.loads: dict[Path, Load] = {}

    def died(self) -> set[Path]:
        """Look once; return the scripts of the processes that were dead in this look and the one before.

        Those that a newer process of the same instance has replaced are left out, and those of a version that is being
        loaded again.
        """
        dead = self._look()
        twice = [self.known[pid] for pid in dead & self.dead if pid in self.known]
        self.dead = dead
        stubs = list(self.known.values())
        replaced = {s for s in twice for t in stubs if s.instance == t.instance and s.started < t.started}
        return {stub.script for stub in twice if stub not in replaced and not self._loads(stub.script)}

    def loads_again(self, script: Path) -> None:
        """Take note that a version is about to be loaded again: its dead processes are not reported any more."""
        self.loads[script] = Load(self._newest(script), time.monotonic() + LOAD_S)
        for pid in [pid for pid in self.dead if pid in self.known and self.known[pid].script == script]:
            del self.known[pid]

    def load_failed(self, script: Path) -> None:
        """Take note that it is not loaded: the next process that dies is reported."""
        self.loads.pop(script, None)

    def forget(self, folder: Path) -> list[int]:
        """Forget the processes of a version, and return their pids."""
        pids = [pid for pid, stub in self.known.items() if stub.script.parent == folder]
        for pid in pids:
            del self.known[pid]
        return pids

    def _look(self) -> set[int]:
        """Note new processes, and return the pids of the dead that Triton has not collected.

        A process that only asks a model for its configuration, as each load begins with, is not noted: if it dies,
        Triton says that the load has failed.
        """
        dead, children = set(), self.server.children()
        for pid in self.known.keys() - {process.pid for process in children}:
            del self.known[pid]
        for process in children:
            try:
                words = process.cmdline()
                script = next((Path(word) for word in words if word.endswith("/model.py")), None)
                if script and script.parent.parent.name not in words:
                    instance = tuple(word for word in words if not word.startswith(self.token))
                    self.known[process.pid] = Stub(script, instance, process.create_time())
            except psutil.ZombieProcess:
                dead.add(process.pid)
            except psutil.NoSuchProcess:
                continue
        return dead

    def _loads(self, script: Path) -> bool:
        """Whether a version is being loaded again and has no new process yet."""
        load = self.loads.get(script)
        return load is not None and time.monotonic() < load.until and self._newest(script) <= load.newest

    def _newest(self, script: Path) -> float:
        """When the newest process of a version was started."""
        return max((stub.started for stub in self.known.values() if stub.script == script), default=0.0)
