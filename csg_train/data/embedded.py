"""An embedded synthetic dataset: drawn by csg, once, into the cache."""

from __future__ import annotations

import ctypes
import os
import signal
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

from csg.console import log
from csg.files import cache_dir
from csg.locks import cached_folder

PR_SET_PDEATHSIG = 1
"""Number of Linux' request for a signal when the parent ends (man 2 prctl)."""
Progress = Callable[[int], None]
"""Called with the number of images that were just drawn."""


@dataclass(frozen=True)
class EmbeddedDataset:
    """How a dataset is drawn, with one process per core. An image depends on its seed and index alone."""

    name: str
    """Its name, as in recipes."""
    version: int
    """Increased when the drawing changes, so that an old cache is not used."""
    folders: tuple[str, ...]
    """The folders of its images and labels."""
    write_chunk: Callable[[Path, int, range], int]
    """Draws the images of a range with a seed into a folder, and returns their number."""
    chunk: int
    """Images that a process draws at a time."""

    def write(self, folder: Path, count: int, seed: int, progress: Progress | None = None) -> None:
        """Draw images 0 to count - 1 into a folder."""
        for name in self.folders:
            (folder / name).mkdir(parents=True)
        chunks = [range(start, min(start + self.chunk, count)) for start in range(0, count, self.chunk)]
        cores = os.process_cpu_count() if hasattr(os, "process_cpu_count") else os.cpu_count()
        with ProcessPoolExecutor(cores, initializer=_end_with_parent) as pool:
            for done in pool.map(self.write_chunk, [folder] * len(chunks), [seed] * len(chunks), chunks):
                if progress:
                    progress(done)

    def cached(self, count: int, seed: int, progress: Progress | None = None) -> Path:
        """The folder of the dataset in the cache, drawn on first use."""

        def draw(folder: Path) -> None:
            log(f"drawing {count} images of {self.name} into {cache_dir()}; later runs reuse them")
            self.write(folder, count, seed, progress)

        return cached_folder(f"{self.name}-v{self.version}-{count}-seed{seed}", draw)


def _end_with_parent() -> None:
    """Let this process end with the one that started it, also if that is killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
