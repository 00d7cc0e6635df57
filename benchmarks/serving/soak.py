"""Soak test: minutes of full load on csg's server, and the memory of the server, the client and the load generator.

    python -m benchmarks.serving.soak [--minutes 10] [--model mobilenet_v2] [--out FOLDER]

There are two loads at the same time. This process sends pixels to the tensor model and JPEG files to the model that
takes image files, in turn. A second process streams the same files through csg's client (csg_serve.stream) in a loop.
Every 5 s the proportional set size is sampled (PSS: a page shared by several processes counts once). Printed are the
level after a warm-up of the first tenth of the time, and the slope of a straight line from there on. The samples are
written to soak.csv, the summary to soak.json.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import csv
import io
import json
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil

from benchmarks.common import export_torchvision, family, file_request, photographs, serving
from csg.console import log, show_table
from csg.files import atomic_write
from csg_serve.bench.load import generate_load, open_sender
from csg_serve.bench.samples import prepare_requests, read_samples
from csg_serve.client.connection import open_model
from csg_serve.client.stream import stream

CONCURRENCY, SAMPLE_S, WARM_UP, IMAGES = 8, 5.0, 0.1, 64
GROUPS = ("server", "client", "load")


def pss_mib(processes: list[psutil.Process]) -> float:
    """Proportional set size of the processes together."""
    total = 0.0
    for process in processes:
        with contextlib.suppress(psutil.Error):
            total += process.memory_full_info().pss / 2**20
    return total


async def stream_forever(server: str, model: str, folder: Path) -> None:
    """Stream the files of a folder through csg's client until the process is ended; prints the number of answers."""
    paths, count = sorted(folder.iterdir()), 0
    async with open_model(server, model) as served:
        while True:
            async for _ in stream(served, paths):
                count += 1
            print(count, flush=True)


@contextmanager
def client(server: str, model: str, images: Path, client_log: Path) -> Iterator[psutil.Process]:
    """Run `stream_forever` in a process of its own."""
    command = [sys.executable, "-m", "benchmarks.serving.soak", "--client", server, model, str(images)]
    with client_log.open("w") as out, subprocess.Popen(command, stdout=out) as process:
        try:
            yield psutil.Process(process.pid)
        finally:
            process.terminate()


async def soak(state: dict, model: str, streaming: psutil.Process, seconds: float) -> tuple[list[list[float]], int]:
    """Generate load; returns samples (seconds, MiB of server, client and load generator) and the number of requests."""
    samples, began = [], time.monotonic()

    async def watch() -> None:
        while True:
            groups = (family(state["pid"]), [streaming], [psutil.Process()])
            samples.append([time.monotonic() - began, *(pss_mib(group) for group in groups)])
            await asyncio.sleep(SAMPLE_S)

    async with open_model(state["grpc"], model) as served, open_sender(state["grpc"]) as call:
        tensors = prepare_requests(served, read_samples(served.card, ()), 1)
        files = [file_request(f"{model}_encoded", file, served.card.outputs[0].name) for file in photographs(IMAGES)]
        requests = [request for pair in zip(tensors, files, strict=True) for request in pair]
        watcher = asyncio.create_task(watch())
        done = 0
        while (left := seconds - (time.monotonic() - began)) > 0:  # in pieces: latencies of minutes are memory too
            done += len((await generate_load(call, requests, CONCURRENCY, min(left, 10))).latencies_ms)
            if not streaming.is_running() or streaming.status() == psutil.STATUS_ZOMBIE:
                raise SystemExit("the client ended")
        watcher.cancel()
    return samples, done


def summary(samples: list[list[float]], seconds: float) -> dict[str, dict[str, float]]:
    """For each group of processes: MiB after the warm-up, at the end and at the peak, and MiB a minute."""
    table = np.array([sample for sample in samples if sample[0] >= WARM_UP * seconds])
    minutes, found = table[:, 0] / 60, {}
    for column, group in enumerate(GROUPS, 1):
        values = table[:, column]
        slope = float(np.polyfit(minutes, values, 1)[0]) if len(values) > 1 else 0.0
        ends = max(1, len(values) // 10)
        found[group] = {
            "level_mib": float(np.median(values[:ends])),
            "end_mib": float(np.median(values[-ends:])),
            "peak_mib": float(values.max()),
            "mib_per_minute": slope,
        }
    return found


def main() -> None:
    """Run the soak test, write and print the results."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--model", default="mobilenet_v2")
    parser.add_argument("--out", type=Path, default=Path("soak"))
    parser.add_argument("--folder", type=Path, help="keep bundle and repository here")
    parser.add_argument("--client", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.client:
        server, model, folder = given.client
        with contextlib.suppress(KeyboardInterrupt):
            asyncio.run(stream_forever(server, model, Path(folder)))
        return
    seconds = given.minutes * 60
    with tempfile.TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary)).resolve()
        bundle = export_torchvision(given.model, folder)
        images, client_log = Path(temporary, "images"), Path(temporary, "client.log")
        images.mkdir()
        for number, file in enumerate(photographs(IMAGES)):
            (images / f"{number}.jpg").write_bytes(file)
        with serving(folder, bundle) as state, client(state["grpc"], given.model, images, client_log) as streaming:
            log(f"{given.minutes:g} minutes of load on {given.model}")
            samples, done = asyncio.run(soak(state, given.model, streaming, seconds))
            streamed = int((client_log.read_text().split() or ["0"])[-1])
    report = {"minutes": given.minutes, "model": given.model, "requests": done, "streamed_images": streamed}
    report |= {"memory": summary(samples, seconds)}
    rows = io.StringIO()
    writer = csv.writer(rows)
    writer.writerow(["seconds", *(f"{group}_mib" for group in GROUPS)])
    writer.writerows([[round(value, 2) for value in sample] for sample in samples])
    atomic_write(given.out / "soak.csv", rows.getvalue().encode())
    atomic_write(given.out / "soak.json", (json.dumps(report, indent=2) + "\n").encode())
    columns = ("PSS, MiB", "after warm-up", "at the end", "peak", "a minute")
    shown = [
        (name, *(f"{one[key]:.1f}" for key in ("level_mib", "end_mib", "peak_mib")), f"{one['mib_per_minute']:+.2f}")
        for name, one in report["memory"].items()
    ]
    show_table(f"{given.minutes:g} minutes, {done} requests and {streamed} streamed images answered", columns, shown)


if __name__ == "__main__":
    main()
