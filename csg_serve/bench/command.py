"""`csg bench`: throughput and latency of a served model, by concurrency or as MLPerf's LoadGen measures them."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from csg.console import log, print_json, show_table
from csg.errors import UsageError
from csg.extras import install_command
from csg.files import atomic_directory, validate_name
from csg.locks import new_folder
from csg.strict_json import json_text
from csg_serve.bench.load import Send, generate_load, open_sender
from csg_serve.bench.results import SCENARIOS, BenchOptions, BenchResult, LoadPoint, ScenarioName
from csg_serve.bench.samples import prepare_requests, read_samples
from csg_serve.client.connection import ServedModel, open_model
from csg_serve.client.statistics import total_statistics

MEASUREMENTS = Path("measurements")
RESULT, PLOT = "bench.json", "bench.png"
WARM_UP = 0.2
"""Duration of the warm-up, relative to a measurement."""


def parse_concurrency(text: str) -> tuple[int, ...]:
    """Parse numbers separated by commas, for example "1,2,4".

    Raises:
        UsageError: the text has another form, or a number is out of range.
    """
    try:
        numbers = tuple(int(part) for part in text.split(","))
    except ValueError:
        numbers = ()
    if not numbers or min(numbers) < 1 or max(numbers) > 10_000:
        raise UsageError(
            f"--concurrency {text} is not a list of numbers from 1 to 10000", "for example --concurrency 1,2,4,8,16"
        )
    return numbers


def parse_scenarios(names: Sequence[str]) -> tuple[ScenarioName, ...]:
    """Check names of LoadGen's scenarios, and drop repeated ones.

    Raises:
        UsageError: a name is unknown.
    """
    known: dict[str, ScenarioName] = {name: name for name in SCENARIOS}
    for name in names:
        if name not in known:
            raise UsageError(f"unknown scenario {name!r}", f"choose from {', '.join(SCENARIOS)}")
    return tuple(dict.fromkeys(known[name] for name in names))


def bench_command(options: BenchOptions, as_json: bool) -> None:
    """Measure, write bench.json and bench.png, and show the results.

    Raises:
        UsageError: an option does not fit the model, or a package is missing.
        ServerError: as `csg_serve.client.connection.open_model`, or a request failed.
        InputError: the data can't be used.
    """
    _check_packages(options)
    result = asyncio.run(_bench(options))
    if as_json:
        print_json(result.to_dict())
    elif result.scenarios:
        _show_scenarios(result)
    else:
        _show_load_points(result)
    log(f"results are in {result.folder}/: {RESULT}, {PLOT}")


def _check_packages(options: BenchOptions) -> None:
    try:
        import matplotlib  # noqa: F401

        if options.scenarios:
            import mlperf_loadgen  # noqa: F401
    except ImportError as error:
        raise UsageError(f"csg bench needs the package {error.name}", install_command("bench")) from None


async def _bench(options: BenchOptions) -> BenchResult:
    async with open_model(options.servers, options.model) as served:
        if options.batch > served.max_batch:
            raise UsageError(
                f"model {served.name} takes at most {served.max_batch} images per request", "choose a lower --batch"
            )
        stem = f"{validate_name(served.name, 'model name')}-{served.version}"
        with new_folder(options.out, MEASUREMENTS, stem) as folder, atomic_directory(folder) as unfinished:
            measure = _measure_scenarios if options.scenarios else _measure_load
            result = await measure(served, options, folder, unfinished)
            (unfinished / RESULT).write_text(json_text(result.to_dict()) + "\n")
    return result


async def _measure_load(served: ServedModel, options: BenchOptions, folder: Path, unfinished: Path) -> BenchResult:
    """Measure each concurrency; the plot goes into `unfinished`, which becomes `folder`."""
    from csg_serve.bench.plots import draw_load_points  # imports Matplotlib

    samples = read_samples(served.card, options.data)
    requests = await asyncio.to_thread(prepare_requests, served, samples, options.batch)
    log(f"{served.name} version {served.version} at {served.server}: {samples.name}, {options.batch} per request")
    points = []
    async with open_sender(options.servers) as send:
        for concurrency in options.concurrency:
            point = await _measure_point(served, send, requests, options=options, concurrency=concurrency)
            log(f"concurrency {concurrency}: {point.images_per_s:.1f} images/s, p50 {point.p50_ms:.1f} ms")
            points.append(point)
    draw_load_points(points, f"{served.name} version {served.version}", unfinished / PLOT)
    return replace(_empty_result(served, options, folder), data=samples.name, load_points=tuple(points))


async def _measure_point(
    served: ServedModel, send: Send, requests: Sequence[bytes], *, options: BenchOptions, concurrency: int
) -> LoadPoint:
    await generate_load(send, requests, concurrency, WARM_UP * options.seconds)
    before = await total_statistics(served.pool, served.name, served.version)
    load = await generate_load(send, requests, concurrency, options.seconds)
    counted = await total_statistics(served.pool, served.name, served.version) - before
    return LoadPoint(
        concurrency=concurrency,
        requests=len(load.latencies_ms),
        images_per_s=options.batch * load.requests_per_s,
        p50_ms=load.percentile(50),
        p90_ms=load.percentile(90),
        p99_ms=load.percentile(99),
        queue_ms=counted.queue_ms or 0.0,
        compute_ms=counted.compute_ms or 0.0,
        batch=counted.mean_batch,
        client_cores=load.client_cores,
    )


async def _measure_scenarios(served: ServedModel, options: BenchOptions, folder: Path, unfinished: Path) -> BenchResult:
    """Run LoadGen's scenarios; logs and plot go into `unfinished`, which becomes `folder`."""
    from csg_serve.bench.mlperf import run_scenarios
    from csg_serve.bench.plots import draw_scenarios

    results = await run_scenarios(served, options, unfinished)
    draw_scenarios(results, unfinished / PLOT)
    return replace(_empty_result(served, options, folder), data=results[0].data, scenarios=tuple(results))


def _empty_result(served: ServedModel, options: BenchOptions, folder: Path) -> BenchResult:
    return BenchResult(
        model=served.name,
        version=served.version,
        server=served.server,
        batch=options.batch,
        seconds=options.seconds,
        cores=len(os.sched_getaffinity(0)),
        folder=folder,
    )


def _show_load_points(result: BenchResult) -> None:
    columns = ("concurrency", "images/s", "p50", "p90", "p99", "queue", "compute", "batch", "client cores")
    rows = []
    for point in result.load_points:
        latencies = (point.p50_ms, point.p90_ms, point.p99_ms, point.queue_ms, point.compute_ms)
        values = (point.images_per_s, *latencies, point.batch, point.client_cores)
        rows.append((str(point.concurrency), *map(_number, values)))
    show_table(_title(result), columns, rows)


def _show_scenarios(result: BenchResult) -> None:
    columns = ("scenario", "mode", "valid", "samples/s", "p50", "p90", "p99", "target/s", "accuracy")
    rows = [
        (
            run.scenario,
            run.mode,
            {True: "yes", False: "no", None: "-"}[run.valid],
            _number(run.samples_per_s),
            *(_number(run.latency_ms.get(percent)) for percent in ("50.00", "90.00", "99.00")),
            _number(run.target_qps),
            "-" if run.accuracy is None else f"{run.accuracy:.2%}",
        )
        for run in result.scenarios
    ]
    show_table(_title(result), columns, rows)


def _title(result: BenchResult) -> str:
    return f"{result.model} version {result.version}, {result.data}; times in ms"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
