"""How one instance of a model uses the CPU cores that it shares with the other instances of its version.

`csg deploy` copies this file beside model.py, where csg can't be imported: it stands alone.

Settings that `csg serve --tuning` switches, all on by default (gains: docs/performance-notes.md):

side-by-side  A batch is computed in chunks by single-threaded runs, one a core, so that no thread waits for another.
              OpenVINO gives each of them a stream.
trial         The chunk size is measured when the model loads. Off: a batch is divided equally among the cores.
wide-session  An instance that finds no other instance at work takes all cores, not only its share. Fewer images than
              cores go through a session that computes each operation on all cores.
spinning      Threads of a session with all cores spin while they wait within a run, and stop between runs; those of a
              session with a share of the cores do not spin.
"""

from __future__ import annotations

import fcntl
import math
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

import numpy as np

TUNING_VARIABLE = "CSG_TUNING"
SIDE_BY_SIDE, TRIAL, WIDE_SESSION, SPINNING = "side-by-side", "trial", "wide-session", "spinning"
SESSION_TUNING = (SIDE_BY_SIDE, TRIAL, WIDE_SESSION, SPINNING)

CHUNKS, ROUNDS, TRIAL_S = (1, 2, 4, 8, 16), 4, 2.0

Run = Callable[[np.ndarray], list[np.ndarray]]
"""Computes every output for uint8 images (N, H, W, 3)."""


@dataclass(frozen=True)
class SessionOptions:
    """The threads of a session."""

    threads: int
    """Threads that compute one run."""

    streams: int = 1
    """Runs that may be computed at the same time, each with separate threads."""

    spinning: bool | None = None
    """Whether threads spin while they wait within a run. None: the library's default."""


OpenSession = Callable[[SessionOptions], Run]


@dataclass(frozen=True)
class Instance:
    """One instance of a model on a CPU."""

    graph: Path
    """The ONNX file. Instances of one version lock it while they compute."""

    image_shape: tuple[int, ...]
    """H, W, 3 of an image; -1 for a side of any length."""

    max_batch: int
    """Largest batch."""

    cores: int
    """Cores that all instances of the model may use."""

    share: int
    """Cores of this instance while all instances are at work."""


def is_tuned(setting: str, tuning: str) -> bool:
    """Return whether a setting is on; `tuning` is "on", "off" or a comma-separated list of settings."""
    return tuning == "on" or setting in tuning.split(",")


class Scheduler:
    """Computes the batches of one instance."""

    def __init__(self, open_session: OpenSession, instance: Instance, tuning: str, log: Callable[[str], None]):
        """Open the sessions.

        Args:
            open_session: opens a session of the model's runtime.
            instance: what is computed, and with how many cores.
            tuning: "on", "off" or a comma-separated list of settings.
            log: writes a line to the server's log.
        """
        self.cores, self.share = instance.cores, instance.share
        free_size = min(instance.image_shape) < 0  # images of one batch are so large that one run uses all cores well
        spin = is_tuned(SPINNING, tuning)
        self.chunk = None
        if is_tuned(SIDE_BY_SIDE, tuning) and not free_size:
            self.chunk = best_chunk(open_session, instance, log) if is_tuned(TRIAL, tuning) else instance.max_batch
        if self.chunk:
            self.narrow = open_session(SessionOptions(threads=1, streams=self.cores))
        else:
            self.narrow = open_session(SessionOptions(threads=self.share, spinning=False if spin else None))
        self.wide = None
        if is_tuned(WIDE_SESSION, tuning) and not free_size and self.cores > 1:
            self.wide = open_session(SessionOptions(threads=self.cores, spinning=True if spin else None))
        self.pools = {count: ThreadPoolExecutor(count) for count in {self.share, self.cores}}
        self.lock = instance.graph.open("rb")
        self.runs: Counter[str] = Counter()

    def __call__(self, images: np.ndarray) -> list[np.ndarray]:
        """Compute every output for a batch of images."""
        if self.wide is None:
            return self._compute(images, self.share)
        with exclusive_or_shared(self.lock) as exclusive:
            if not exclusive:
                return self._compute(images, self.share)
            if self.chunk and len(images) >= self.cores:
                return self._compute(images, self.cores)
            self.runs["in the wide session"] += 1
            return self.wide(images)

    def _compute(self, images: np.ndarray, threads: int) -> list[np.ndarray]:
        """Compute a batch with the narrow session: in chunks on `threads` threads, or in one run."""
        self.runs[f"with {threads} of {self.cores} cores"] += 1
        chunks = split_batch(images, threads, self.chunk) if self.chunk else [images]
        if len(chunks) == 1:
            return self.narrow(images)
        rows = self.pools[threads].map(self.narrow, chunks) if threads > 1 else map(self.narrow, chunks)
        return [np.concatenate(parts) for parts in zip(*rows, strict=True)]


def split_batch(images: np.ndarray, threads: int, largest: int) -> list[np.ndarray]:
    """Divide a batch into chunks of at most `largest` images, at least one for each thread if there are enough."""
    size = min(largest, math.ceil(len(images) / threads))
    return [images[start : start + size] for start in range(0, len(images), size)]


@contextmanager
def exclusive_or_shared(lock: BinaryIO) -> Iterator[bool]:
    """Hold the lock exclusively if no other instance of the version is at work, else share it.

    An exclusive run has all cores: an instance that starts meanwhile waits until it is over. Under load there is almost
    always another one, so every instance shares the lock and computes with its share of the cores.

    Yields:
        Whether the lock is exclusive.
    """
    exclusive = False
    with suppress(OSError):  # another instance is at work, or the file system has no locks
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        exclusive = True
    if not exclusive:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_SH)
    try:
        yield exclusive
    finally:
        with suppress(OSError):
            fcntl.flock(lock, fcntl.LOCK_UN)


def best_chunk(open_session: OpenSession, instance: Instance, log: Callable[[str], None]) -> int:
    """Measure for up to 2 s how many images a single thread computes at once with the least CPU time an image.

    A network whose activations leave the caches (MobileNetV2) prefers few, one with many weights (ResNet-50) many. CPU
    time is measured, not elapsed time: it does not depend on what else runs on the machine.
    """
    run = open_session(SessionOptions(threads=1))  # not kept: a session keeps the memory of its largest run
    sizes = [size for size in CHUNKS if size <= instance.max_batch]
    best = dict.fromkeys(sizes, float("inf"))
    deadline = time.perf_counter() + TRIAL_S
    for size in sizes * ROUNDS:
        if time.perf_counter() > deadline:
            break
        started = time.process_time()
        run(np.zeros((size, *instance.image_shape), np.uint8))
        best[size] = min(best[size], (time.process_time() - started) / size)
    measured = [size for size in sizes if best[size] < float("inf")]
    fastest = min(measured, key=lambda size: best[size])
    times = ", ".join(f"{size}: {best[size] * 1e3:.2f} ms" for size in measured)
    log(f"images in a chunk: {fastest} (CPU time an image, by chunk size: {times})")
    return instance.max_batch if fastest == max(measured) else fastest
