"""Memory while a served segmenter is evaluated on few and many images of 1024 x 2048 pixels, whole and in tiles.

    python -m benchmarks.serving.segmentation_memory

Trains a model for one step of the embedded recipe, serves it with Triton, and evaluates it through the server. Printed
are the peaks of the resident memory of the client, and of all processes of the server together.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import psutil
from PIL import Image

from benchmarks.common import csg, family, serving
from csg.console import show_table

COUNTS = (8, 32)


def write_scenes(folder: Path, count: int) -> None:
    """Write images of noise, 1024 x 2048 pixels, with every pixel labelled background."""
    pixels = np.random.default_rng(0).integers(0, 256, (1024, 2048, 3), dtype=np.uint8)
    for kind, array in (("images", pixels), ("labels", np.zeros((1024, 2048), np.uint8))):
        (folder / kind).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(array).save(folder / kind / f"{number}.png", compress_level=1)


def resident_mib(pid: int) -> float:
    """Resident memory of a process and its children."""
    try:
        return float(sum(process.memory_info().rss for process in family(pid)) / 2**20)
    except psutil.Error:
        return 0.0


def evaluate(folder: Path, server: dict[str, str], data: Path, *more: str) -> tuple[float, float, float]:
    """Evaluate once: peak MiB of the client and the server, and seconds an image."""
    command = [sys.executable, "-m", "csg", "evaluate", "--server", server["grpc"], "--data", str(data)]
    command += ["--labels", "digit-scenes", "--json", *more]
    started, peaks = time.perf_counter(), [0.0, 0.0]
    process = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    done = threading.Event()

    def watch() -> None:
        while not done.wait(0.05):
            for index, pid in enumerate((process.pid, int(server["pid"]))):
                peaks[index] = max(peaks[index], resident_mib(pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    out, _ = process.communicate()
    done.set()
    watcher.join()
    images = json.loads(out)["images"]
    return peaks[0], peaks[1], (time.perf_counter() - started) / images


def main() -> None:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        csg("train", "seg", "--method", "none", "--set", "optim.max_steps=1", "--set", "data.count=100", cwd=folder)
        bundle = folder / "bundle"
        csg("export", "--out", bundle, cwd=folder)
        rows = []
        with serving(folder, bundle) as server:
            for more in ((), ("--tile", "512")):
                for count in COUNTS:
                    data = folder / f"data-{count}"
                    if not data.is_dir():
                        write_scenes(data, count)
                    client, served, seconds = evaluate(folder, server, data, *more)
                    name = f"{count} images, {' '.join(more) or 'whole'}"
                    rows.append((name, f"{client:.0f}", f"{served:.0f}", f"{seconds:.2f}"))
    show_table("1024 x 2048 pixels, peak MiB", ("", "client", "server", "s/image"), rows)


if __name__ == "__main__":
    main()
