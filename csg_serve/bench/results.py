"""Options and results of `csg bench`, shared by the modules that measure, draw and show."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Final, Literal, get_args

from csg_serve.client.endpoints import Servers

SCHEMA_VERSION: Final = 1

ScenarioName = Literal["single-stream", "server", "offline"]
SCENARIOS: tuple[ScenarioName, ...] = get_args(ScenarioName)


@dataclass(frozen=True, kw_only=True)
class BenchOptions:
    """Options of `csg bench`."""

    servers: Servers
    """Addresses of the servers, with TLS files and secret; requests go to them in turn."""
    model: str | None = None
    """Name of the model; None for the only csg model on the server."""
    out: Path | None = None
    """Folder of the results; None for the next free one in measurements/."""
    concurrency: tuple[int, ...] = (1, 2, 4, 8, 16)
    """Requests in flight; each number is measured on its own."""
    batch: int = 1
    """Images per request."""
    seconds: float = 10.0
    """Duration of one measurement."""
    data: tuple[str, ...] = ()
    """Sources of the images. Without any: random pixels, or the embedded digits to measure accuracy."""
    scenarios: tuple[ScenarioName, ...] = ()
    """Scenarios of MLPerf's LoadGen to run instead of the concurrency levels."""
    accuracy: bool = False
    """Also run each scenario in LoadGen's accuracy mode."""
    qps: float | None = None
    """Queries per second of the scenario "server"; None searches for the highest rate within the latency bound."""
    latency_ms: float = 100.0
    """Latency bound of the scenario "server", in milliseconds: 99 % of the queries must stay below it."""


@dataclass(frozen=True, kw_only=True)
class LoadPoint:
    """Throughput and latency at one number of requests in flight."""

    concurrency: int
    """Requests in flight."""
    requests: int
    """Requests that were answered."""
    images_per_s: float
    """Images answered per second."""
    p50_ms: float
    """Median latency of a request, from sending to answer, in milliseconds."""
    p90_ms: float
    """90th percentile of the latency, in milliseconds."""
    p99_ms: float
    """99th percentile of the latency, in milliseconds."""
    queue_ms: float
    """Mean time of a request in the server's queue, in milliseconds."""
    compute_ms: float
    """Mean time of a request in the server's backend, in milliseconds."""
    batch: float
    """Mean images per execution of the graph."""
    client_cores: float
    """Cores that the client kept busy."""


@dataclass(frozen=True, kw_only=True)
class ScenarioResult:
    """Result of one LoadGen run."""

    scenario: ScenarioName
    """Name of the scenario."""
    mode: Literal["performance", "accuracy"]
    """Mode of LoadGen."""
    data: str
    """Name of the images."""
    logs: str
    """Folder of LoadGen's logs, relative to the report."""
    queries: int
    """Queries that were answered."""
    valid: bool | None = None
    """LoadGen's verdict on a performance run; a run with too few queries is invalid too."""
    samples_per_s: float | None = None
    """Throughput of a performance run."""
    latency_ms: Mapping[str, float] = field(default_factory=dict)
    """Latency of a query in milliseconds, by percentile: "50.00" to "99.90"."""
    target_qps: float | None = None
    """Queries per second that were sent; scenario "server" only."""
    latency_bound_ms: float | None = None
    """Bound on the 99th percentile; scenario "server" only."""
    accuracy: float | None = None
    """Accuracy over all samples, of the accuracy mode."""
    mean_class_accuracy: float | None = None
    """Mean class accuracy over all samples, of the accuracy mode."""


@dataclass(frozen=True, kw_only=True)
class BenchResult:
    """bench.json and `csg bench --json`."""

    schema_version: int = SCHEMA_VERSION
    """Version of the file format."""
    model: str
    """Name of the model."""
    version: int
    """Version of the model."""
    server: str
    """Address of the server, or of several."""
    batch: int
    """Images per request."""
    seconds: float
    """Duration of one measurement."""
    cores: int
    """Cores that the client may use."""
    folder: Path
    """Folder of the results."""
    data: str = ""
    """Name of the images."""
    load_points: tuple[LoadPoint, ...] = ()
    """Measurements by concurrency; empty if scenarios were run."""
    scenarios: tuple[ScenarioResult, ...] = ()
    """Results of LoadGen's scenarios."""

    def to_dict(self) -> dict[str, Any]:
        """As JSON types."""
        return asdict(self) | {"folder": str(self.folder)}
