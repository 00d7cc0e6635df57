"""Cost of sending pixels to a server on this machine: gRPC, HTTP, and each with shared memory.

    python -m benchmarks.serving.transport

The models answer at once without reading the pixels, so that only the transport is measured, including the copies of
Triton's Python backend. Four requests are in flight, as in `csg evaluate`. The transports take turns. A ratio is the
median over the rounds of a transport's time divided by gRPC's in the same round.
"""

from __future__ import annotations

import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import AsyncExitStack
from pathlib import Path

import numpy as np

from csg.console import show_table
from csg_serve.client.connection import IN_FLIGHT, connect
from csg_serve.client.endpoints import as_servers
from csg_serve.client.shared_memory_pool import SharedMemoryPool
from csg_serve.client.transport import Inference

ROUNDS, REQUESTS = 15, 40
WORKLOADS = {  # model, shape of the pixels, shape and type of an answer's row
    "8 x 224 x 224": ("photographs", (8, 224, 224, 3), (1000,), "FP32"),
    "1 x 1024 x 2048": ("scene", (1, 1024, 2048, 3), (1024, 2048), "UINT8"),
}
MODEL = """
import numpy as np
import triton_python_backend_utils as pb_utils

class TritonPythonModel:
    def execute(self, requests):
        images = [pb_utils.get_input_tensor_by_name(request, "image").as_numpy() for request in requests]
        answers = [np.zeros((len(image), *{row}), np.{dtype}) for image in images]
        return [pb_utils.InferenceResponse([pb_utils.Tensor("answer", answer)]) for answer in answers]
"""
CONFIG = """
backend: "python"
max_batch_size: 8
input [{{ name: "image", data_type: TYPE_UINT8, dims: {dims} }}]
output [{{ name: "answer", data_type: TYPE_{type}, dims: {row} }}]
"""


def write_models(repository: Path) -> None:
    """Write a model for each workload."""
    for name, shape, row, kind in WORKLOADS.values():
        (repository / name / "1").mkdir(parents=True)
        dtype = {"FP32": "float32", "UINT8": "uint8"}[kind]
        (repository / name / "1" / "model.py").write_text(MODEL.format(row=row, dtype=dtype))
        config = CONFIG.format(dims=list(shape[1:]), type=kind, row=list(row))
        (repository / name / "config.pbtxt").write_text(config)


async def measure(addresses: dict[str, str]) -> list[tuple[str, ...]]:
    """A row for each workload and transport: milliseconds a request, CPU milliseconds of the client, ratio to gRPC."""
    rows = []
    async with AsyncExitStack() as stack:
        pools = {}
        for name, address in (("gRPC", addresses["grpc"]), ("HTTP", f"http://{addresses['http']}")):
            servers = as_servers(address)
            transport = connect(servers.addresses[0], servers)
            stack.push_async_callback(transport.close)
            for shared in (False, True):
                pool = pools[f"{name}, shared memory" if shared else name] = SharedMemoryPool(transport, shared)
                stack.push_async_callback(pool.close)
        for title, (model, shape, row, kind) in WORKLOADS.items():
            pixels = np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)
            inference = Inference(
                model=model,
                input="image",
                tensor=pixels,
                output="answer",
                dtype=kind,
                row=row,
                classes=256,
                deadline_s=60,
            )
            found = {name: [] for name in pools}
            for number in range(ROUNDS + 1):
                for name, pool in pools.items():
                    taken = await one_round(pool, inference)
                    if number:  # the first one warms up
                        found[name].append(taken)
            assert all(pool.enabled == name.endswith("memory") for name, pool in pools.items())
            for name, taken in found.items():
                ratio = statistics.median(own[0] / base[0] for own, base in zip(taken, found["gRPC"], strict=True))
                wall, cpu = (statistics.median(column) for column in zip(*taken, strict=True))
                rows.append((title, name, f"{wall:.2f}", f"{cpu:.2f}", f"{ratio:.2f}"))
    return rows


async def one_round(pool: SharedMemoryPool, inference: Inference) -> tuple[float, float]:
    """Milliseconds a request, and CPU milliseconds of the client."""

    async def send_some() -> None:
        for _ in range(REQUESTS // IN_FLIGHT):
            await pool.infer(inference, 1)

    began, worked = time.perf_counter(), time.process_time()
    await asyncio.gather(*(send_some() for _ in range(IN_FLIGHT)))
    return 1000 * (time.perf_counter() - began) / REQUESTS, 1000 * (time.process_time() - worked) / REQUESTS


def main() -> None:
    """Serve the models, measure and print."""
    command = [sys.executable, "-m", "csg", "serve"]
    with tempfile.TemporaryDirectory() as folder:
        write_models(Path(folder))
        ports = [word for name in ("http", "grpc", "metrics") for word in (f"--{name}-port", "0")]
        started = subprocess.run(
            [*command, "--detach", "--json", "--repository", folder, *ports], check=True, stdout=subprocess.PIPE
        )
        try:
            rows = asyncio.run(measure(json.loads(started.stdout)))
        finally:
            subprocess.run([*command, "--stop", "--repository", folder], check=True)
    show_table("milliseconds a request", ("pixels", "transport", "elapsed", "client's CPU", "ratio to gRPC"), rows)


if __name__ == "__main__":
    main()
