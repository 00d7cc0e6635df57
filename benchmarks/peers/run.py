"""csg's server compared with other Python servers: the same ONNX file, JPEG in, class out, the same load.

    python -m benchmarks.peers.run [--workloads NAME ...] [--rounds 5] [--seconds 10] [--only NAME ...] [--json FILE]

FastAPI with ONNX Runtime, LitServe, BentoML, MLServer and PyTriton, each in its own virtual environment in csg's cache
(created by pip on first use), configured as its documentation recommends for throughput: see the top of each
*_server.py. Where the documentation leaves a choice (one process with all cores or one per core, threads of ONNX
Runtime that wait or spin, batching or not), a trial selects the fastest. csg is measured twice: with the same
arithmetic as the others, and with a bundle of `csg export --bf16`, which has the same ONNX graph and weights and is
computed in bf16 by OpenVINO. Ratios refer to the first.

The workloads, with random weights: `web` MobileNetV2 and photographs of 500 x 375; `phone` MobileNetV2 and photographs
of 4032 x 3024, which the others decode with Pillow in full, as their documents do, and csg at a reduced scale;
`resnet50` ResNet-50 and photographs of 500 x 375.

The servers take turns. Each runs alone with the load client, on the cores that this process may use (`taskset -c 0,1`).
All get their load from the same loop (csg_serve.bench.load.generate_load): over HTTP through aiohttp with persistent
connections, over gRPC with requests prepared beforehand. The predicted classes are compared with ONNX Runtime's.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch

import aiohttp
from tritonclient.grpc.service_pb2 import ModelInferResponse

from benchmarks.common import (
    cpu_seconds,
    export_torchvision,
    file_request,
    phone_photographs,
    photographs,
    serving,
)
from benchmarks.peers.peers import CORES, PEERS, SCALED_FASTAPI, Peer, Settings, started
from csg.console import log, show_table
from csg.errors import ServerError
from csg_serve.bench.load import LoadResult, Send, generate_load, open_sender
from csg_serve.triton.config import encoded_name

OURS = "csg"
OURS_BF16 = "csg, bf16"
CONCURRENCY, WARM_UP_S, START_S = 16, 3.0, 180.0
BOUNDARY = "b-o-u-n-d-a-r-y"


@dataclass(frozen=True)
class Workload:
    """A network and the images that are sent to it."""

    title: str
    """For the table."""
    network: str
    """A classifier of torchvision."""
    phone: bool = False
    """Whether the images are a phone's, of 12 megapixels."""


WORKLOADS = {
    "web": Workload("MobileNetV2, JPEG of 500 x 375", "mobilenet_v2"),
    "phone": Workload("MobileNetV2, JPEG of 4032 x 3024", "mobilenet_v2", phone=True),
    "resnet50": Workload("ResNet-50, JPEG of 500 x 375", "resnet50"),
}


def right_classes(model: Path, files: Sequence[bytes], scaled: bool) -> list[int]:
    """The classes that ONNX Runtime itself predicts for the files; `scaled`: decoded by csg."""
    from benchmarks.peers.model import Classifier

    settings = {"PEER_MODEL": str(model), "PEER_THREADS": str(CORES), "PEER_SPIN": "0"}
    with patch.dict(os.environ, settings | {"PEER_SCALED": "1" if scaled else "0"}):
        classifier = Classifier()
        return classifier.classes([classifier.prepare(file) for file in files])


def http_body(field: str, file: bytes) -> bytes:
    """The body of a request: the file itself, or the file as a field of a form."""
    if not field:
        return file
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{field}"; filename="a.jpg"\r\n'
    return f"{head}Content-Type: image/jpeg\r\n\r\n".encode() + file + f"\r\n--{BOUNDARY}--\r\n".encode()


@asynccontextmanager
async def posting(address: str, field: str) -> AsyncIterator[Send]:
    """A function that posts a body to /classify and returns the body of the answer."""
    content = f"multipart/form-data; boundary={BOUNDARY}" if field else "image/jpeg"
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(limit=0)) as session:

        async def call(body: bytes) -> bytes:
            headers = {"Content-Type": content}
            async with session.post(f"http://{address}/classify", data=body, headers=headers) as response:
                answer = await response.read()
                if response.status != 200:
                    raise ServerError(f"HTTP {response.status}: {answer[:200]!r}", "see its log")
                return answer

        yield call


def class_in(answer: bytes, grpc: bool) -> int:
    """The index of the class in an answer: JSON, an INT64 tensor, or Triton's "score:class"."""
    if not grpc:
        return int(re.findall(rb"\d+", answer)[-1])
    response = ModelInferResponse.FromString(answer)
    if response.outputs[0].datatype == "INT64":
        found = response.outputs[0].contents.int64_contents
        return found[0] if found else int.from_bytes(response.raw_output_contents[0], "little")
    return int(response.raw_output_contents[0][4:].split(b":")[1])


async def ready(call: Send, request: bytes) -> None:
    """Wait until a server has answered 20 requests: some of its processes start later than others."""
    deadline, answered = time.monotonic() + START_S, 0
    while answered < 20:
        try:
            await asyncio.gather(*(call(request) for _ in range(4)))
            answered += 4
        except (ServerError, aiohttp.ClientError, OSError):
            if time.monotonic() > deadline:
                raise
            await asyncio.sleep(0.3)


@dataclass(frozen=True)
class Run:
    """A measurement: what the load had, and milliseconds of CPU that the server's processes took for an image."""

    load: LoadResult
    server_cpu_ms: float


async def load(call: Send, requests: list[bytes], right: list[int], *, grpc: bool, seconds: float, pid: int) -> Run:
    """Check the predicted classes, warm up and measure."""
    await ready(call, requests[0])
    found = [class_in(await call(request), grpc) for request in requests]
    if found != right:
        raise SystemExit(f"the answers differ: {found} for {right}")
    await generate_load(call, requests, CONCURRENCY, WARM_UP_S)
    before = cpu_seconds(pid)
    measured = await generate_load(call, requests, CONCURRENCY, seconds)
    return Run(measured, (cpu_seconds(pid) - before) / len(measured.latencies_ms) * 1e3)


class Comparison:
    """The files, the model and the folder that all servers share."""

    def __init__(self, workload: Workload, folder: Path, *, seconds: float, images: Path | None):
        self.folder, self.seconds = folder, seconds
        self.files = phone_photographs(16, images) if workload.phone else photographs(16)
        self.bundle = export_torchvision(workload.network, folder)
        self.bundles = {OURS: self.bundle, OURS_BF16: export_torchvision(workload.network, folder, "--bf16")}
        self.to_deploy = list(self.bundles.values())
        self.right = {way: right_classes(self.bundle / "model.onnx", self.files, way) for way in (False, True)}

    def peer(self, peer: Peer, settings: Settings, seconds: float) -> Run:
        """Start a peer, measure it once and stop it."""

        async def run(address: str, pid: int) -> Run:
            grpc = [file_request("peer", file, "class") for file in self.files]
            http = [http_body(peer.field, file) for file in self.files]
            async with open_sender(address) if peer.grpc else posting(address, peer.field) as call:
                requests = grpc if peer.grpc else http
                right = self.right[peer.scaled]
                return await load(call, requests, right, grpc=peer.grpc, seconds=seconds, pid=pid)

        log_file = self.folder / f"{peer.name}.log"
        with started(peer, settings, self.bundle / "model.onnx", log_file) as (address, pid):
            return asyncio.run(run(address, pid))

    def ours(self, name: str, seconds: float) -> Run:
        """Start csg's server, measure it once and stop it."""
        model = encoded_name(self.bundles[name].name)

        async def run(address: str, pid: int) -> Run:
            requests = [file_request(model, file, "logits", classification=True) for file in self.files]
            async with open_sender(address) as call:
                return await load(call, requests, self.right[True], grpc=True, seconds=seconds, pid=pid)

        bundles, self.to_deploy = self.to_deploy, []
        with serving(self.folder, *bundles) as state:
            return asyncio.run(run(state["grpc"], state["pid"]))

    def best_settings(self, peer: Peer) -> Settings:
        """The fastest of a peer's settings, from one run of each."""
        rates = []
        for settings in peer.settings:
            rates.append(self.peer(peer, settings, self.seconds).load.requests_per_s)
            log(f"trial: {peer.name} {settings}: {rates[-1]:.1f}/s")
        return peer.settings[rates.index(max(rates))]


def table(runs: dict[str, list[Run]], settings: dict[str, Settings]) -> list[dict[str, Any]]:
    """Medians over the rounds; ratios are taken within each round."""
    rows = []
    for name, of_it in runs.items():
        loads = [run.load for run in of_it]
        ratios = [one.requests_per_s / ours.load.requests_per_s for one, ours in zip(loads, runs[OURS], strict=True)]
        rows.append(
            {
                "server": name,
                "images_per_s": statistics.median(load.requests_per_s for load in loads),
                "p50_ms": statistics.median(load.percentile(50) for load in loads),
                "p99_ms": statistics.median(load.percentile(99) for load in loads),
                "of_ours": statistics.median(ratios),
                "server_cpu_ms": statistics.median(run.server_cpu_ms for run in of_it),
                "client_cores": statistics.median(load.client_cores for load in loads),
                "settings": settings.get(name),
                "rounds": [load.requests_per_s for load in loads],
            }
        )
    return sorted(rows, key=lambda row: -row["images_per_s"])


def show(title: str, rows: list[dict[str, Any]]) -> None:
    """Print the table, and csg's ratio to the best and to the median peer."""
    columns = ("server", "images/s", "p50 ms", "p99 ms", "of csg's", "CPU ms/image", "client cores", "settings")
    shown = [
        (
            row["server"],
            *(f"{row[key]:.1f}" for key in ("images_per_s", "p50_ms", "p99_ms")),
            *(f"{row[key]:.2f}" for key in ("of_ours", "server_cpu_ms", "client_cores")),
            ", ".join(f"{key.lower()} {value}" for key, value in (row["settings"] or {}).items()),
        )
        for row in rows
    ]
    show_table(f"{title}, class out, concurrency {CONCURRENCY}, {CORES} cores", columns, shown)
    found = {row["server"]: row["of_ours"] for row in rows if row["server"] != SCALED_FASTAPI}
    ours = {name: found.pop(name) for name in (OURS, OURS_BF16)}
    for name, share in ours.items() if found else ():
        best, middle = share / max(found.values()), share / statistics.median(found.values())
        log(f"{name} against the best of them: {best:.2f}, the median: {middle:.2f}")


def compare(comparison: Comparison, peers: Sequence[Peer], rounds: int) -> list[dict[str, Any]]:
    """Measure csg and its peers in rounds."""
    best = {peer.name: comparison.best_settings(peer) for peer in peers}
    runs: dict[str, list[Run]] = {name: [] for name in (OURS, OURS_BF16, *(peer.name for peer in peers))}
    for number in range(rounds):
        for name in (OURS, OURS_BF16):
            runs[name].append(comparison.ours(name, comparison.seconds))
        for peer in peers:
            runs[peer.name].append(comparison.peer(peer, best[peer.name], comparison.seconds))
        rates = {name: round(of_it[-1].load.requests_per_s, 1) for name, of_it in runs.items()}
        log(f"round {number + 1}: {rates}")
    return table(runs, best)


def main() -> None:
    """Measure and print the servers."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--workloads", nargs="+", choices=WORKLOADS, default=list(WORKLOADS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--only", nargs="+", default=[peer.name for peer in PEERS])
    parser.add_argument("--images", type=Path, help="folder of images to enlarge to those of a phone")
    parser.add_argument("--folder", type=Path, help="keep bundle, repository and logs here")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found: dict[str, list[dict[str, Any]]] = {}
    for name in given.workloads:
        workload = WORKLOADS[name]
        peers = [peer for peer in PEERS if peer.name in given.only and (workload.phone or not peer.scaled)]
        with tempfile.TemporaryDirectory() as temporary:
            folder = (given.folder or Path(temporary)).resolve() / name
            folder.mkdir(parents=True, exist_ok=True)
            comparison = Comparison(workload, folder, seconds=given.seconds, images=given.images)
            found[name] = compare(comparison, peers, given.rounds)
        show(workload.title, found[name])
        if given.json:
            given.json.write_text(json.dumps(found, indent=2) + "\n")


if __name__ == "__main__":
    main()
