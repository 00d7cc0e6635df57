"""Plots of `csg bench`: throughput and latency by concurrency, and latencies of LoadGen's scenarios."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from csg.files import atomic_write
from csg_serve.bench.results import LoadPoint, ScenarioResult

PERCENTILES = ((50, "p50_ms", "-"), (90, "p90_ms", "--"), (99, "p99_ms", ":"))


def draw_load_points(points: Sequence[LoadPoint], title: str, path: Path) -> None:
    """Draw three panels: throughput, latency percentiles, and the mean time of a request inside the server."""
    figure = Figure(figsize=(13, 4), layout="constrained")
    throughput, latency, split = figure.subplots(1, 3)
    positions, names = range(len(points)), [str(point.concurrency) for point in points]
    throughput.plot(positions, [point.images_per_s for point in points], marker="o")
    throughput.set(title=title, ylabel="images/s", ylim=(0, None))
    for percent, key, style in PERCENTILES:
        latency.plot(positions, [getattr(point, key) for point in points], style, marker="o", label=f"p{percent}")
    latency.set(title="request latency", ylabel="ms", ylim=(0, None))
    latency.legend()
    queue, compute = [point.queue_ms for point in points], [point.compute_ms for point in points]
    split.bar(positions, compute, label="compute")
    split.bar(positions, queue, bottom=compute, label="queue")
    split.set(title="mean time inside the server", ylabel="ms")
    split.legend()
    for axes in (throughput, latency, split):
        axes.set_xticks(positions, names)
        axes.set_xlabel("requests in flight")
    _save(figure, path)


def draw_scenarios(results: Sequence[ScenarioResult], path: Path) -> None:
    """Draw the latency percentiles of each scenario's performance mode."""
    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    for result in results:
        percentiles = [f"{float(percent):g} %" for percent in result.latency_ms]
        if percentiles:
            label = f"{result.scenario}, {result.samples_per_s:.1f} samples/s"
            axes.plot(percentiles, list(result.latency_ms.values()), marker="o", label=label)
    axes.set(title="MLPerf LoadGen", xlabel="percentile", ylabel="query latency, ms", yscale="log")
    axes.legend()
    _save(figure, path)


def _save(figure: Figure, path: Path) -> None:
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=150, metadata={"Software": None})
    atomic_write(path, buffer.getvalue())
