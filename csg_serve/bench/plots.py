"""The pictures of `csg bench`: throughput and latency against concurrency, latencies of MLPerf's scenarios."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from csg.files import atomic_write
from csg_serve.bench.results import LoadPoint, ScenarioResult

PERCENTILES = ((50, "p50_ms", "-"), (90, "p90_ms", "--"), (99, "p99_ms", ":"))


def draw_levels(levels: Sequence[LoadPoint], title: str, path: Path) -> None:
    """Throughput; percentiles of the latency; where a request's mean time in the server goes: three panels."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    throughput, latency, split = figure.subplots(1, 3)
    places, names = range(len(levels)), [str(level.concurrency) for level in levels]
    throughput.plot(places, [level.images_per_s for level in levels], marker="o")
    throughput.set(title=title, ylabel="images/s", ylim=(0, None))
    for share, key, style in PERCENTILES:
        latency.plot(places, [getattr(level, key) for level in levels], style, marker="o", label=f"{share} %")
    latency.set(title="latency of a request", ylabel="ms", ylim=(0, None))
    latency.legend()
    queue, compute = [level.queue_ms for level in levels], [level.compute_ms for level in levels]
    split.bar(places, compute, label="compute")
    split.bar(places, queue, bottom=compute, label="queue")
    split.set(title="mean of a request inside the server", ylabel="ms")
    split.legend()
    for axes in (throughput, latency, split):
        axes.set_xticks(places, names)
        axes.set_xlabel("requests under way")
    _save(figure, path)


def draw_scenarios(results: Sequence[ScenarioResult], path: Path) -> None:
    """Percentiles of the latency in each scenario's performance mode."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for result in results:
        shares = [f"{float(share):g} %" for share in result.latency_ms]
        if shares:
            label = f"{result.scenario}, {result.samples_per_s:.1f} samples/s"
            axes.plot(shares, list(result.latency_ms.values()), marker="o", label=label)
    axes.set(title="MLPerf LoadGen", xlabel="share of the queries", ylabel="latency, ms", yscale="log")
    axes.legend()
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    atomic_write(path, buffer.getvalue())
