"""A small gRPC server that speaks Triton's protocol, inside the event loop of a test: for what needs no model.

It serves the model "colour": the logits of an image are the means of its channels. A test makes it fail, stall or
serve another version, as a real Triton does that restarts or is given a new bundle.
"""

import asyncio
import subprocess
import sys
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path

import grpc
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

from csg_serve.client.loop_thread import LoopThread
from csg_serve.triton.config import add_golden, model_config
from csg_serve.triton.deploy_options import DeployOptions
from tests.helpers.tiny_bundle import tiny_card

ROOT = Path(__file__).parents[2]


class SmallServer(service_pb2_grpc.GRPCInferenceServiceServicer):
    """What it serves can be changed at any time.

    Attributes:
        card: of the model.
        versions: ready ones.
        max_batch: images that a request may have.
        failures: gRPC code and message of the next answers to requests, one each.
        delay_s: until a request is answered.
        requests: number of requests so far.
        requests_until_stop: requests that are answered before all calls fail as if it had shut down.
        restricted: the statistics need a secret.
        golden: golden answers that the configuration carries; None for a bundle without.
        answered: number of answers so far.
        busiest: most requests in flight at a time.
    """

    def __init__(self, card=None, versions=(1,), max_batch=4):
        self.card, self.versions, self.max_batch = card or tiny_card(), list(versions), max_batch
        self.failures, self.delay_s = [], 0.0
        self.requests = self.busiest = self._in_flight = 0
        self.restricted, self.port = False, 0
        self.requests_until_stop = self.golden = None
        self.answered = 0

    async def start(self):
        """Listen, at the same port as before if there was one."""
        self._server = grpc.aio.server(options=[("grpc.so_reuseport", 0)])
        service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(self, self._server)
        self.port = self._server.add_insecure_port(f"127.0.0.1:{self.port}")
        await self._server.start()
        return self

    async def stop(self):
        """Break all connections."""
        await self._server.stop(0)

    def logits(self, pixels):
        """float32 (N, 3), the means of the channels."""
        return pixels.mean((1, 2), dtype=np.float32)

    def _stopped(self):
        return self.requests_until_stop is not None and self.requests > self.requests_until_stop

    @property
    def address(self):
        return f"127.0.0.1:{self.port}"

    async def ModelStatistics(self, request, context):
        if self._stopped():
            await context.abort(grpc.StatusCode.UNAVAILABLE, "shutting down")
        if self.restricted:
            await context.abort(grpc.StatusCode.UNAVAILABLE, "statistics is restricted, expecting header")
        answer = service_pb2.ModelStatisticsResponse()
        for version in self.versions:
            answer.model_stats.add(
                name=self.card.name, version=str(version), inference_count=self.requests, execution_count=self.answered
            )
        return answer

    async def ModelMetadata(self, request, context):
        versions = [str(version) for version in self.versions]
        return service_pb2.ModelMetadataResponse(name=request.name, versions=versions)

    async def ModelConfig(self, request, context):
        options = DeployOptions(backend="python", max_batch=self.max_batch)
        config = model_config(self.card, self.card.name, int(request.version), options)
        add_golden(config, self.golden)
        return service_pb2.ModelConfigResponse(config=config)

    async def SystemSharedMemoryRegister(self, request, context):
        """As a server in a container, which can't open it."""
        await context.abort(grpc.StatusCode.INTERNAL, "Unable to open shared memory region")

    async def SystemSharedMemoryUnregister(self, request, context):
        return service_pb2.SystemSharedMemoryUnregisterResponse()

    async def ModelInfer(self, request, context):
        self.requests += 1
        self._in_flight += 1
        self.busiest = max(self.busiest, self._in_flight)
        try:
            if int(request.model_version) not in self.versions:
                await context.abort(grpc.StatusCode.NOT_FOUND, "unknown model: version is not at ready state")
            if self._stopped():
                await context.abort(grpc.StatusCode.UNAVAILABLE, "shutting down")
            if self.failures:
                await context.abort(*self.failures.pop(0))
            await asyncio.sleep(self.delay_s)
        finally:
            self._in_flight -= 1
        shape = tuple(request.inputs[0].shape)
        if shape[0] > self.max_batch:
            message = f"inference request batch-size must be <= {self.max_batch} for 'colour'"
            await context.abort(grpc.StatusCode.INVALID_ARGUMENT, message)
        pixels = np.frombuffer(request.raw_input_contents[0], np.uint8).reshape(shape)
        logits = self.logits(pixels)
        answer = service_pb2.ModelInferResponse(model_name=request.model_name, model_version=request.model_version)
        answer.outputs.add(name="logits", datatype="FP32", shape=logits.shape)
        answer.raw_output_contents.append(logits.tobytes())
        self.answered += 1
        return answer


@asynccontextmanager
async def running(*servers):
    """The servers, listening."""
    for server in servers:
        await server.start()
    try:
        yield
    finally:
        for server in servers:
            await server.stop()


@contextmanager
def in_a_thread(server):
    """The server in an event loop of its own, for synchronous code; yields what runs a coroutine there."""
    thread = LoopThread()
    thread.run(server.start())
    try:
        yield thread.run
    finally:
        thread.stop(server.stop())


@contextmanager
def in_a_process():
    """The server in a process of its own, for commands that have an event loop of their own; yields its address."""
    process = subprocess.Popen([sys.executable, "-m", __name__], stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        yield process.stdout.readline().strip()
    finally:
        process.kill()
        process.wait()


async def _serve():
    async with running(server := SmallServer()):
        print(server.address, flush=True)
        await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve())
