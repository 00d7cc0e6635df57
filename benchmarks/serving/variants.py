"""One network served in several precisions and backends: images a second of each, relative to the first.

    python -m benchmarks.serving.variants [--models mobilenet_v2 resnet50] [--precisions fp32 fp16] [--json F]

Every precision is served in the Python backend, and in the onnxruntime backend too if the tritonserver on PATH has it.
All are models of one server and take turns under load, in an order that alternates; ratios are taken within a round,
and printed are their median, smallest and largest. The loads are those of `benchmarks.serving.tuning`. Client and
server share the cores. Run it on an idle machine; `bf16` needs a CPU that computes it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
from collections import defaultdict
from pathlib import Path

from benchmarks.common import csg, export_torchvision, serving
from benchmarks.serving.tuning import LOADS, images_per_s
from csg.bundle import read_bundle
from csg.console import log, show_table
from csg_serve.triton.executable import best_backend

Rates = dict[str, dict[str, list[float]]]
"""Images a second in each round, by load and variant."""


def deploy_variants(model: str, precisions: list[str], folder: Path) -> list[str]:
    """Deploy every precision for every backend of the tritonserver here; the names of the models, the first first."""
    names = []
    for precision in precisions:
        options = () if precision == "fp32" else ("--precision", precision)
        bundle = export_torchvision(model, folder, *options)
        found = best_backend(read_bundle(bundle).card)
        for backend in ("python", *(["onnxruntime"] if found == "onnxruntime" else [])):
            names.append(f"{model}-{precision}-{backend}")
            csg("deploy", bundle, "--backend", backend, "--name", names[-1], cwd=folder)
    return names


def measure(address: str, names: list[str], given: argparse.Namespace) -> Rates:
    """Load each variant in turn."""
    rates: Rates = defaultdict(lambda: defaultdict(list))
    for number in range(given.rounds):
        for load in given.loads:
            for name in names if number % 2 == 0 else names[::-1]:
                rates[load][name].append(asyncio.run(images_per_s(address, name, load, given.seconds)))
        last = {load: {name: round(values[-1], 1) for name, values in found.items()} for load, found in rates.items()}
        log(f"round {number + 1}: {last}")
    return rates


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["mobilenet_v2", "resnet50"])
    parser.add_argument("--precisions", nargs="+", default=["fp32", "fp16"])
    parser.add_argument("--loads", nargs="+", choices=list(LOADS), default=["loaded", "batches"])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    found: dict[str, Rates] = {}
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        names = {model: deploy_variants(model, given.precisions, folder) for model in given.models}
        with serving(folder) as state:
            for model in given.models:
                found[model] = measure(state["grpc"], names[model], given)
    if given.json:
        given.json.write_text(json.dumps(found, indent=2) + "\n")
    for model, rates in found.items():
        rows = [
            (load, name, f"{statistics.median(values):.1f}", *spread(values, by_name[names[model][0]]))
            for load, by_name in rates.items()
            for name, values in by_name.items()
        ]
        columns = ("load", "model", "images/s", "ratio", "min", "max")
        show_table(f"{model}, {len(os.sched_getaffinity(0))} cores", columns, rows)


def spread(values: list[float], first: list[float]) -> tuple[str, str, str]:
    """Median, smallest and largest ratio within the rounds."""
    ratios = [value / other for value, other in zip(values, first, strict=True)]
    return tuple(f"{of(ratios):.3f}" for of in (statistics.median, min, max))  # type: ignore[return-value]


if __name__ == "__main__":
    main()
