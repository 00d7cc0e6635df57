"""What serving costs: a model through Triton against a bare ONNX Runtime session on the same cores.

    python -m benchmarks.serving.overhead [--rounds 7] [--seconds 10] [--json FILE]

Throughput: single images (UINT8, 224 x 224) at concurrency 8, batched by Triton, against a session in a process of its
own at its best batch size, with spinning threads or waiting ones, whichever is faster. Latency: concurrency 1 against
the session's with one image, the faster of spinning and waiting. The pixels travel in the requests over gRPC, or lie in
shared memory, as csg's own client has it on one machine; load for the latter comes over HTTP, from sockets that do no
more than they must (gRPC's Python client takes three times as much of the cores, which the server needs). All take
turns, and ratios and differences are taken within a round; printed are their medians. Server and load client share the
cores with each other, the session has them for itself. Run it on idle cores: pin it (`taskset -c 0,1`) where the
machine has other things to do.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from tritonclient.grpc.service_pb2 import ModelInferRequest

from benchmarks.common import export_torchvision, serving
from csg.console import log, show_table
from csg.errors import ServerError
from csg_serve.bench.load import LoadResult, Send, generate_load, open_sender
from csg_serve.bench.samples import prepare_requests, read_samples
from csg_serve.client.connection import ServedModel, open_model
from csg_serve.client.shared_memory import Region

MODELS = ("mobilenet_v2", "resnet50")
BATCHES = (1, 2, 4, 8, 16, 32)
CONCURRENCY, TRIALS = 8, 4
LENGTH = re.compile(rb"\r\nContent-Length: (\d+)\r\n")
WAYS = {"in the request": False, "shared memory": True}


class Bare:
    """ONNX Runtime sessions of a model in a process of its own, one with spinning threads, one with waiting ones."""

    def __init__(self, model: Path):
        command = [sys.executable, "-m", "benchmarks.serving.overhead", "--session", str(model)]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def run(self, batch: int, spin: bool, seconds: float) -> tuple[float, float]:
        """Images a second, and the median milliseconds of a run."""
        assert self.process.stdin
        assert self.process.stdout
        print(json.dumps([batch, spin, seconds]), file=self.process.stdin, flush=True)
        rate, latency = json.loads(self.process.stdout.readline())
        return rate, latency

    def close(self) -> None:
        """End the process."""
        self.process.communicate()


def be_a_session(model: str) -> None:
    """The process of `Bare`: a line (batch, spin, seconds) in, a line (images/s, ms) out."""
    import onnxruntime as ort

    sessions = {}
    for spin in (False, True):
        options = ort.SessionOptions()
        options.intra_op_num_threads = len(os.sched_getaffinity(0))
        options.add_session_config_entry("session.intra_op.allow_spinning", str(int(spin)))
        sessions[spin] = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
    name, side = sessions[True].get_inputs()[0].name, sessions[True].get_inputs()[0].shape[1]
    for line in sys.stdin:
        batch, spin, seconds = json.loads(line)
        images = np.random.default_rng(0).integers(0, 256, (batch, side, side, 3), dtype=np.uint8)
        for _ in range(3):
            sessions[spin].run(None, {name: images})
        began, took = time.perf_counter(), []
        while (started := time.perf_counter()) < began + seconds:
            sessions[spin].run(None, {name: images})
            took.append(time.perf_counter() - started)
        rate = batch * len(took) / (time.perf_counter() - began)
        print(json.dumps([rate, statistics.median(took) * 1e3]), flush=True)


async def through_triton(
    state: dict[str, Any], model: str, concurrency: int, seconds: float, shared: bool
) -> LoadResult:
    """A time under load, after a second to warm up."""
    async with AsyncExitStack() as stack:
        served = await stack.enter_async_context(open_model(state["grpc"], model))
        requests = prepare_requests(served, read_samples(served.card, ()), 1)
        if shared:
            requests = await stack.enter_async_context(in_shared_memory(served, requests))
            call = await stack.enter_async_context(calling_http(state["http"]))
        else:
            call = await stack.enter_async_context(open_sender(state["grpc"]))
        await generate_load(call, requests, concurrency, 1)
        return await generate_load(call, requests, concurrency, seconds)


@asynccontextmanager
async def in_shared_memory(served: ServedModel, requests: list[bytes]) -> AsyncIterator[list[bytes]]:
    """The same requests over HTTP, with their pixels in a region that the server knows."""
    asked = [ModelInferRequest.FromString(request) for request in requests]
    pixels = np.stack([np.frombuffer(request.raw_input_contents.pop(), np.uint8) for request in asked])
    region, server = Region(pixels.nbytes), served.pool.replicas[0].transport
    try:
        region.write(pixels)
        await server.call("register_system_shared_memory", region.name, f"/{region.name}", region.size)
        yield [http_request(request, region.name, place, pixels[0].nbytes) for place, request in enumerate(asked)]
        await server.call("unregister_system_shared_memory", region.name)
    finally:
        region.unlink()


def http_request(asked: ModelInferRequest, region: str, place: int, size: int) -> bytes:
    """What goes over the wire for the image at a place of a region."""
    pixels, logits = asked.inputs[0], asked.outputs[0]
    where = {"shared_memory_region": region, "shared_memory_byte_size": size, "shared_memory_offset": place * size}
    tensor = {"name": pixels.name, "datatype": pixels.datatype, "shape": list(pixels.shape), "parameters": where}
    output = {"name": logits.name, "parameters": {"binary_data": True}}
    body = json.dumps({"inputs": [tensor], "outputs": [output]})
    head = f"POST /v2/models/{asked.model_name}/infer HTTP/1.1\r\nHost: -\r\nContent-Length: {len(body)}\r\n\r\n"
    return (head + body).encode()


@asynccontextmanager
async def calling_http(address: str) -> AsyncIterator[Send]:
    """A function that sends a request's bytes and returns the answer's body; connections are kept open."""
    host, port = address.rsplit(":", 1)
    idle: list[tuple[asyncio.StreamReader, asyncio.StreamWriter]] = []

    async def call(request: bytes) -> bytes:
        reader, writer = idle.pop() if idle else await asyncio.open_connection(host, port)
        writer.write(request)
        head = await reader.readuntil(b"\r\n\r\n")
        body = await reader.readexactly(int(LENGTH.search(head)[1]))
        if not head.startswith(b"HTTP/1.1 200 "):
            raise ServerError(f"{head!r} {body[:200]!r}", "see its log")
        idle.append((reader, writer))
        return body

    yield call
    for _, writer in idle:
        writer.close()


def measure(state: dict[str, Any], model: str, bundle: Path, rounds: int, seconds: float) -> dict[str, Any]:
    """All figures of one model."""
    bare = Bare(bundle / "model.onnx")
    tries = defaultdict(list)
    for _ in range(TRIALS):
        for setting in product(BATCHES, (False, True)):
            tries[setting].append(bare.run(*setting, seconds / 8))
    best = max(tries, key=lambda setting: max(rate for rate, _ in tries[setting]))
    quick = min((False, True), key=lambda spin: min(latency for _, latency in tries[1, spin]))
    log(f"{model}: bare session best at batch {best[0]}, {'spinning' if best[1] else 'waiting'}")
    found = defaultdict(list)
    for number in range(rounds):
        found["bare_per_s"].append(bare.run(*best, seconds)[0])
        found["bare_ms"].append(bare.run(1, quick, seconds / 2)[1])
        for way, shared in WAYS.items():
            loaded = asyncio.run(through_triton(state, model, CONCURRENCY, seconds, shared))
            found[f"{way}_per_s"].append(loaded.requests_per_s)
            found[f"{way}_client"].append(loaded.client_cores)
            single = asyncio.run(through_triton(state, model, 1, seconds / 2, shared))
            found[f"{way}_ms"].append(single.percentile(50))
            found[f"{way}_ratio"].append(loaded.requests_per_s / found["bare_per_s"][-1])
            found[f"{way}_added_ms"].append(found[f"{way}_ms"][-1] - found["bare_ms"][-1])
        last = {name: round(values[-1], 2) for name, values in found.items()}
        log(f"{model} round {number + 1}: {last}")
    bare.close()
    medians = {name: statistics.median(values) for name, values in found.items()}
    return {"model": model, "bare_batch": best[0], "bare_spins": best[1], **medians, "rounds": found}


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=MODELS)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--folder", type=Path, help="keep bundles and repository here")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--session", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.session:
        be_a_session(given.session)
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = given.folder or Path(temporary)
        bundles = {name: export_torchvision(name, folder) for name in given.models}
        results = []
        with serving(folder, *bundles.values()) as state:
            for name, bundle in bundles.items():
                results.append(measure(state, name, bundle, given.rounds, given.seconds))
    if given.json:
        given.json.write_text(json.dumps(results, indent=2) + "\n")
    columns = ("model", "pixels", "bare/s", "Triton/s", "ratio", "bare ms", "Triton ms", "added ms", "client cores")
    rows = [
        (
            one["model"],
            way,
            f"{one['bare_per_s']:.1f} (batch {one['bare_batch']})",
            f"{one[f'{way}_per_s']:.1f}",
            f"{one[f'{way}_ratio']:.3f}",
            f"{one['bare_ms']:.2f}",
            f"{one[f'{way}_ms']:.2f}",
            f"{one[f'{way}_added_ms']:.2f}",
            f"{one[f'{way}_client']:.2f}",
        )
        for one in results
        for way in WAYS
    ]
    cores = len(os.sched_getaffinity(0))
    show_table(f"Triton at concurrency {CONCURRENCY} against a bare session, {cores} cores", columns, rows)


if __name__ == "__main__":
    main()
