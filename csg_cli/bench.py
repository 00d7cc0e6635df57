"""`csg bench`."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Optional

import typer

from csg.errors import UsageError
from csg_cli.options import ConnectionOptions, Json, Model, examples, grouped

if TYPE_CHECKING:
    from csg_serve.bench.results import BenchOptions
    from csg_serve.client.endpoints import Servers

BENCH_EXAMPLES = examples("csg bench --concurrency 1,8", "csg bench --scenario server --latency-ms 50 --accuracy")


@dataclass(frozen=True, kw_only=True)
class LoadOptions:
    """What is measured."""

    concurrency: Annotated[
        str, typer.Option(help="Requests in flight, separated by commas; each number is measured on its own.")
    ] = "1,2,4,8,16"
    batch: Annotated[int, typer.Option(help="Images in a request.", min=1)] = 1
    seconds: Annotated[float, typer.Option(help="Duration of one measurement.", min=0.1)] = 10.0
    data: Annotated[
        Optional[list[str]],
        typer.Option(
            help="Images to send, as `csg evaluate` takes them.",
            show_default="random pixels; with --accuracy the embedded digits",
        ),
    ] = None
    scenario: Annotated[
        Optional[list[str]],
        typer.Option(help="Run MLPerf LoadGen's single-stream, server or offline scenario instead. Repeatable."),
    ] = None
    accuracy: Annotated[bool, typer.Option("--accuracy", help="Scenarios: also run LoadGen's accuracy mode.")] = False
    qps: Annotated[
        Optional[float],
        typer.Option(help="Scenario server: queries per second.", show_default="the highest possible", min=0.01),
    ] = None
    latency_ms: Annotated[
        float, typer.Option(help="Scenario server: latency bound for 99 % of the queries.", min=0.1)
    ] = 100.0

    def bench_options(self, servers: Servers, model: str | None, out: Path | None) -> BenchOptions:
        """The options as csg_serve takes them.

        Raises:
            UsageError: --concurrency or --scenario is invalid, or --accuracy has no scenario.
        """
        from csg_serve.bench.command import parse_concurrency, parse_scenarios
        from csg_serve.bench.results import BenchOptions

        if self.accuracy and not self.scenario:
            raise UsageError(
                "--accuracy is a mode of MLPerf's scenarios", "name one with --scenario, or use `csg evaluate`"
            )
        return BenchOptions(
            servers=servers,
            model=model,
            out=out,
            concurrency=parse_concurrency(self.concurrency),
            batch=self.batch,
            seconds=self.seconds,
            data=tuple(self.data or ()),
            scenarios=parse_scenarios(self.scenario or []),
            accuracy=self.accuracy,
            qps=self.qps,
            latency_ms=self.latency_ms,
        )


@grouped
def bench(
    *,
    connection: ConnectionOptions,
    model: Model = None,
    load: LoadOptions,
    out: Annotated[
        Optional[Path],
        typer.Option(help="Folder for the report.", show_default="measurements/<model>-<version>-<n>"),
    ] = None,
    as_json: Json = False,
) -> None:
    """Measure the throughput and latency of a served model under load, or run MLPerf LoadGen's scenarios.

    On one machine, client and server share the cores: the report states what the client used.
    """
    from csg_serve.bench.command import bench_command

    bench_command(load.bench_options(connection.servers(), model, out), as_json)
