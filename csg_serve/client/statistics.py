"""Triton's statistics of loaded models."""

from __future__ import annotations

from dataclasses import astuple, dataclass
from typing import Any

from tritonclient.grpc.model_config_pb2 import ModelConfig

from csg.errors import ServerError
from csg_serve.client.pool import Pool
from csg_serve.client.transport import Transport, TransportError, check_count, version_number


@dataclass(frozen=True)
class ModelStatistics:
    """Counters of one model version since it was loaded. They can be added and subtracted."""

    requests: int = 0
    """Requests that succeeded."""
    failed: int = 0
    """Requests that failed."""
    images: int = 0
    """Images in the requests that succeeded."""
    executions: int = 0
    """Executions of the graph, each on one batch."""
    queue_ns: int = 0
    """Time in the queue, summed over all requests, in nanoseconds."""
    compute_ns: int = 0
    """Time in the backend, summed over all requests, in nanoseconds."""

    def __add__(self, other: ModelStatistics) -> ModelStatistics:
        return ModelStatistics(*(a + b for a, b in zip(astuple(self), astuple(other), strict=True)))

    def __sub__(self, other: ModelStatistics) -> ModelStatistics:
        return ModelStatistics(*(a - b for a, b in zip(astuple(self), astuple(other), strict=True)))

    @property
    def queue_ms(self) -> float | None:
        """Mean milliseconds that a request waited, None before the first request."""
        return self.queue_ns / self.requests / 1e6 if self.requests else None

    @property
    def compute_ms(self) -> float | None:
        """Mean milliseconds that a request computed, None before the first request."""
        return self.compute_ns / self.requests / 1e6 if self.requests else None

    @property
    def mean_batch(self) -> float:
        """Mean images of an execution, 0 before the first one."""
        return self.images / self.executions if self.executions else 0.0


def warm_up_statistics(config: ModelConfig) -> ModelStatistics:
    """What Triton counts for the warm-up of a model, without times: every instance computes every sample once.

    Args:
        config: the model's configuration, as the server has completed it.
    """
    instances = sum(group.count * max(1, len(group.gpus)) for group in config.instance_group)
    samples = [(max(1, sample.count), max(1, sample.batch_size)) for sample in config.model_warmup]
    images = instances * sum(count * size for count, size in samples)  # each is a request of its own
    return ModelStatistics(requests=images, images=images, executions=instances * sum(count for count, _ in samples))


async def read_statistics(transport: Transport) -> dict[tuple[str, int], ModelStatistics]:
    """Statistics of every loaded model of one server, by name and version.

    Raises:
        TransportError: the server did not answer, or lists too many models; of kind "restricted" if it requires a
            secret.
    """
    answer = await transport.call("get_inference_statistics")
    check_count(answer.model_stats)
    return {(entry.name, version_number(entry.version)): _from_protobuf(entry) for entry in answer.model_stats}


async def total_statistics(pool: Pool, model: str, version: int) -> ModelStatistics:
    """Statistics of one model version, summed over all servers of a pool.

    Raises:
        ServerError: one of the servers did not answer.
    """
    total = ModelStatistics()
    for replica in pool.replicas:
        try:
            found = await read_statistics(replica.transport)
        except TransportError as error:
            raise ServerError(f"no statistics from {replica.address}: {error.detail}", "see its log") from None
        total += found.get((model, version), ModelStatistics())
    return total


def _from_protobuf(entry: Any) -> ModelStatistics:
    times = entry.inference_stats
    compute_ns = times.compute_input.ns + times.compute_infer.ns + times.compute_output.ns
    return ModelStatistics(
        requests=times.success.count,
        failed=times.fail.count,
        images=entry.inference_count,
        executions=entry.execution_count,
        queue_ns=times.queue.ns,
        compute_ns=compute_ns,
    )
