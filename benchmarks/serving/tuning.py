"""Gain of each setting of `csg serve --tuning`, and of the second instance: with it and without it, in one run.

    python -m benchmarks.serving.tuning [--models mobilenet_v2 resnet50] [--precision fp32] [--rounds 5] [--seconds 4]

For each setting two servers run on the same bundle, one with all tuning, one without the setting. They take turns under
load while the other one is idle; the order alternates. Printed is the median over the rounds of the ratio of their
throughputs, and the smallest and largest ratio: 1.05 means 5 % more images per second with the setting.

Loads: `lone` is one client with one image a request, `loaded` eight of them, `batches` one client with 32 images a
request; `files` is sixteen clients with one JPEG file a request, through the model that takes image files.
Client and servers share the cores. Run it on an idle machine; `bf16` needs a CPU that computes it.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import statistics
import tempfile
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from benchmarks.common import export_torchvision, file_request, photographs, serving
from csg.console import log, show_table
from csg_serve.bench.load import generate_load, open_sender
from csg_serve.bench.samples import prepare_requests, read_samples
from csg_serve.client.connection import open_model
from csg_serve.python_backend.scheduling import SIDE_BY_SIDE, SPINNING, TRIAL, WIDE_SESSION
from csg_serve.server.tuning import ALL_TUNING, BATCH_POLICY

LOADS = {"lone": (1, 1), "loaded": (8, 1), "batches": (1, 32), "files": (16, 1)}
"""Requests in flight, and images in each."""

FILES = 32
ALL, SECOND_INSTANCE = "all", "second-instance"

PURPOSE = {
    ALL: ["lone", "loaded", "batches"],
    SECOND_INSTANCE: ["loaded", "files"],
    BATCH_POLICY: ["loaded", "files"],
    SIDE_BY_SIDE: ["loaded", "batches"],
    TRIAL: ["batches"],
    WIDE_SESSION: ["lone", "batches"],
    SPINNING: ["lone"],
}
"""The loads that a setting is for."""


@dataclass(frozen=True)
class Gain:
    """Throughput with a setting divided by the throughput without it."""

    model: str
    setting: str
    load: str

    with_per_s: list[float]
    """Images per second with the setting, one value a round."""

    without_per_s: list[float]
    """Images per second without the setting, one value a round."""

    @property
    def ratios(self) -> list[float]:
        """Ratio of each round."""
        return [one / other for one, other in zip(self.with_per_s, self.without_per_s, strict=True)]


async def images_per_s(address: str, model: str, load: str, seconds: float) -> float:
    """Throughput under a load, after a second of warm-up."""
    concurrency, batch = LOADS[load]
    async with open_model(address, model) as served, open_sender(address) as send:
        if load == "files":
            output = served.card.outputs[0].name
            requests = [file_request(f"{model}_encoded", file, output) for file in photographs(FILES)]
        else:
            requests = prepare_requests(served, read_samples(served.card, ()), batch)
        await generate_load(send, requests, concurrency, 1)
        return batch * (await generate_load(send, requests, concurrency, seconds)).requests_per_s


def options_without(setting: str) -> dict[str, list[str]]:
    """Options of `csg deploy` and `csg serve` that leave out a setting."""
    if setting == ALL:
        return {"serve": ["--tuning", "off"]}
    if setting == SECOND_INSTANCE:
        return {"deploy": ["--instances", "1"]}
    return {"serve": ["--tuning", ",".join(name for name in ALL_TUNING if name != setting)]}


def measure(bundle: Path, setting: str, folder: Path, given: argparse.Namespace) -> list[Gain]:
    """Serve a bundle with and without a setting, and compare them under each load."""
    variants: dict[str, dict[str, list[str]]] = {"with": {}, "without": options_without(setting)}
    loads = given.loads or PURPOSE[setting]
    rates: dict[str, dict[str, list[float]]] = {load: {name: [] for name in variants} for load in loads}
    with ExitStack() as stack:
        addresses = {}
        for name, options in variants.items():
            (folder / setting / name).mkdir(parents=True)
            state: dict[str, Any] = stack.enter_context(serving(folder / setting / name, bundle, **options))
            addresses[name] = state["grpc"]
        for number in range(given.rounds):
            order = list(variants) if number % 2 == 0 else list(variants)[::-1]
            for load in loads:
                for name in order:
                    rate = asyncio.run(images_per_s(addresses[name], bundle.name, load, given.seconds))
                    rates[load][name].append(rate)
            last = {load: round(found["with"][-1] / found["without"][-1], 3) for load, found in rates.items()}
            log(f"{bundle.name} {setting} round {number + 1}: {last}")
    return [
        Gain(bundle.name, setting, load, with_per_s=found["with"], without_per_s=found["without"])
        for load, found in rates.items()
    ]


def arguments() -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", default=["mobilenet_v2", "resnet50"])
    parser.add_argument("--precision", default="fp32")
    parser.add_argument("--settings", nargs="+", default=list(PURPOSE), choices=list(PURPOSE))
    parser.add_argument("--loads", nargs="+", choices=list(LOADS), help="default: the loads that a setting is for")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--json", type=Path)
    return parser.parse_args()


def main() -> None:
    """Measure and print."""
    given = arguments()
    gains = []
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for model in given.models:
            precision = () if given.precision == "fp32" else ("--precision", given.precision)
            bundle = export_torchvision(model, folder, *precision)
            for setting in given.settings:
                gains += measure(bundle, setting, folder / model, given)
    if given.json:
        given.json.write_text(json.dumps([{**asdict(gain), "ratios": gain.ratios} for gain in gains], indent=2) + "\n")
    columns = ("setting", "load", "with/s", "without/s", "ratio", "min", "max")
    for model in given.models:
        rows = [
            (
                gain.setting,
                gain.load,
                f"{statistics.median(gain.with_per_s):.1f}",
                f"{statistics.median(gain.without_per_s):.1f}",
                f"{statistics.median(gain.ratios):.3f}",
                f"{min(gain.ratios):.3f}",
                f"{max(gain.ratios):.3f}",
            )
            for gain in gains
            if gain.model.startswith(model)
        ]
        show_table(f"{model}, {given.precision}, {len(os.sched_getaffinity(0))} cores: images/s", columns, rows)


if __name__ == "__main__":
    main()
