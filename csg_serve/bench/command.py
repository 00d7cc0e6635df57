"""`csg bench`: how much a served model answers and how fast, under growing load, or as MLPerf's LoadGen asks."""

from __future__ import annotations

import asyncio
import json
import os
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from csg.console import log, print_json, show_table
from csg.errors import InputError, UsageError
from csg.files import atomic_directory, next_free_path
from csg_serve.bench.load import calling, keep_busy
from csg_serve.bench.results import SCENARIOS, BenchOptions, LoadPoint, ScenarioName
from csg_serve.bench.samples import Samples, prepared_requests, read_samples
from csg_serve.client.connection import ServedModel, open_model
from csg_serve.client.endpoints import Servers
from csg_serve.client.statistics import total_statistics

MEASUREMENTS = Path("measurements")
REPORT, PICTURE = "bench.json", "bench.png"
WARM_UP = 0.2  # of the time of a level


def parse_concurrency(text: str) -> tuple[int, ...]:
    """`1,2,4` as numbers.

    Raises:
        UsageError: it is no such list.
    """
    try:
        levels = tuple(int(part) for part in text.split(","))
    except ValueError:
        levels = ()
    if not levels or min(levels) < 1 or max(levels) > 10_000:
        raise UsageError(f"--concurrency {text} is no list of numbers", "give for example --concurrency 1,2,4,8,16")
    return levels


def parse_scenarios(names: Sequence[str]) -> tuple[ScenarioName, ...]:
    """Names of MLPerf's scenarios, each once.

    Raises:
        UsageError: there is no such scenario.
    """
    known: dict[str, ScenarioName] = {name: name for name in SCENARIOS}
    for name in names:
        if name not in known:
            raise UsageError(f"there is no scenario {name!r}", f"choose from {', '.join(SCENARIOS)}")
    return tuple(dict.fromkeys(known[name] for name in names))


def bench_command(servers: Servers, model: str | None, options: BenchOptions, out: Path | None, as_json: bool) -> None:
    """Measure, write bench.json and bench.png, and show.

    Args:
        servers: where they are; requests take turns over several.
        model: its name; the only csg model there by default.
        out: folder for the report.

    Raises:
        UsageError: an option does not fit the model, or a package is missing.
        ServerError: as `csg_serve.client.connection.open_model`, or a request failed.
        InputError: the data can't be used, or the folder exists.
    """
    if out and out.exists():
        raise InputError(f"{out} exists already", "name another folder with --out, or remove it")
    _check_packages(options)
    report = asyncio.run(_bench(servers, model, options, out))
    if as_json:
        print_json(report)
    else:
        _show(report)
    log(f"{report['out']}/ has it as {REPORT} and {PICTURE}")


def _check_packages(options: BenchOptions) -> None:
    try:
        import matplotlib  # noqa: F401

        if options.scenarios:
            import mlperf_loadgen  # noqa: F401
    except ImportError as error:
        raise UsageError(f"csg bench needs the package {error.name}", "pip install 'csg[bench]'") from None


async def _bench(servers: Servers, model: str | None, options: BenchOptions, out: Path | None) -> dict[str, Any]:
    from csg_serve.bench.mlperf import run_scenarios
    from csg_serve.bench.plots import draw_levels, draw_scenarios

    async with open_model(servers, model) as served:
        if options.batch > served.max_batch:
            raise UsageError(f"model {served.name} takes at most {served.max_batch} images a request", "lower --batch")
        folder = out or next_free_path(MEASUREMENTS, f"{served.name}-{served.version}")
        report = {
            "model": served.name,
            "version": served.version,
            "server": served.server,
            "batch": options.batch,
            "seconds": options.seconds,
            "cores": len(os.sched_getaffinity(0)),
            "out": str(folder),
            "data": "",
            "levels": [],
            "scenarios": [],
        }
        with atomic_directory(folder) as fresh:
            if options.scenarios:
                found = await run_scenarios(served, servers, options, fresh)
                report |= {"data": found[0].data, "scenarios": [asdict(one) for one in found]}
                draw_scenarios(found, fresh / PICTURE)
            else:
                samples = read_samples(served.card, options.data)
                levels = await _levels(served, servers, samples, options)
                report |= {"data": samples.name, "levels": [asdict(level) for level in levels]}
                draw_levels(levels, f"{served.name} version {served.version}", fresh / PICTURE)
            (fresh / REPORT).write_text(json.dumps(report, indent=2, allow_nan=False) + "\n")
    return report


async def _levels(served: ServedModel, servers: Servers, samples: Samples, options: BenchOptions) -> list[LoadPoint]:
    levels, batch = [], options.batch
    requests = await asyncio.to_thread(prepared_requests, served, samples, batch)
    log(f"{served.name} version {served.version} at {served.server}: {samples.name}, {batch} a request")
    async with calling(servers) as call:
        for concurrency in options.concurrency:
            await keep_busy(call, requests, concurrency, WARM_UP * options.seconds)
            before = await total_statistics(served.pool, served.name, served.version)
            spell = await keep_busy(call, requests, concurrency, options.seconds)
            did = await total_statistics(served.pool, served.name, served.version) - before
            levels.append(
                LoadPoint(
                    concurrency=concurrency,
                    requests=len(spell.latencies_ms),
                    images_per_s=batch * spell.per_s,
                    p50_ms=spell.percentile(50),
                    p90_ms=spell.percentile(90),
                    p99_ms=spell.percentile(99),
                    queue_ms=did.queue_ms or 0.0,
                    compute_ms=did.compute_ms or 0.0,
                    batch=did.mean_batch,
                    client_cores=spell.client_cores,
                )
            )
            log(f"concurrency {concurrency}: {levels[-1].images_per_s:.1f} images/s, p50 {levels[-1].p50_ms:.1f} ms")
    return levels


def _show(report: dict[str, Any]) -> None:
    title = f"{report['model']} version {report['version']}, {report['data']}; times in ms"
    if report["scenarios"]:
        columns = ("scenario", "mode", "valid", "samples/s", "p50", "p90", "p99", "target/s", "accuracy")
        rows = [
            (
                one["scenario"],
                one["mode"],
                {True: "yes", False: "no", None: "-"}[one["valid"]],
                _number(one["samples_per_s"]),
                *(_number(one["latency_ms"].get(share)) for share in ("50.00", "90.00", "99.00")),
                _number(one["target_qps"]),
                "-" if one["accuracy"] is None else f"{one['accuracy']:.2%}",
            )
            for one in report["scenarios"]
        ]
    else:
        columns = ("concurrency", "images/s", "p50", "p90", "p99", "queue", "compute", "batch", "client cores")
        keys = ("images_per_s", "p50_ms", "p90_ms", "p99_ms", "queue_ms", "compute_ms", "batch", "client_cores")
        rows = [(str(level["concurrency"]), *(_number(level[key]) for key in keys)) for level in report["levels"]]
    show_table(title, columns, rows)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
