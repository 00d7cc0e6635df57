"""The table of a comparison (`table.md`): a row for each method, and below it what it was measured with."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from csg.errors import printable
from csg.files import atomic_write
from csg_train.compare.results import ENERGIES, MethodResult
from csg_train.recipe import Recipe, SegmentationData
from csg_train.tasks import TASKS

TABLE = "table.md"


def write_table(folder: Path, base: Recipe, rule: str, methods: Sequence[MethodResult]) -> None:
    """Write `table.md`."""
    lines = [_table(methods, TASKS[base.task].scores), "", *_caption(base, methods, rule), ""]
    atomic_write(folder / TABLE, "\n".join(lines).encode())


def _table(methods: Sequence[MethodResult], scores: dict[str, str]) -> str:
    def cell(method: MethodResult, name: str, scale: float, digits: int) -> str:
        mean, deviation = method.mean(name), method.deviation(name)
        around = "" if deviation is None else f" ± {scale * deviation:.{digits}f}"
        return "–" if mean is None else f"{scale * mean:.{digits}f}{around}"

    lines = [
        (
            printable(method.label).replace("|", "\\|"),
            str(len(method.runs)),
            *(cell(method, name, 100, 1) for name in scores),
            *(cell(method, name, 1, 3) for name in ENERGIES),
            f"{1000 * statistics.fmean(method.values('seconds_per_step')):.0f}",
            f"{statistics.fmean(method.values('peak_memory_mib')):.0f}",
        )
        for method in methods
    ]
    columns = ("method", "seeds", *scores.values(), *ENERGIES, "ms per step", "peak memory MiB")
    return tabulate(lines, columns, tablefmt="pipe", disable_numparse=True, colalign=("left", *["right"] * 8))


def _caption(base: Recipe, methods: Sequence[MethodResult], rule: str) -> list[str]:
    runs = [run for method in methods for run in method.runs]

    def every(name: str) -> str:
        return ", ".join(map(str, dict.fromkeys(getattr(run, name) for run in runs)))

    lines = [
        f"Recipe {base.name}: {base.model.backbone}, {_pixels(base)} px, {runs[0].steps} steps of {base.optim.batch}, "
        f"trained on {', '.join(Path(s).name for s in base.data.train)}, measured on {runs[0].images} images of "
        f"{', '.join(Path(s).name for s in base.data.real)}; mean ± standard deviation over seeds; "
        f"{every('precision')} on {every('device')}, threads: {every('threads')}.",
        "E_s: hyperspherical energy of the pooled embeddings of the real images; lower is more diverse.",
        rule,
    ]
    if any(method.chosen for method in methods):
        lines.append("Chosen: " + "; ".join(f"{method.label} {_short(method.chosen)}" for method in methods) + ".")
    energies = [run.energy for run in runs if run.energy]
    if clamped := sum(energy.clamped for energy in energies):
        lines.append(f"{clamped} pairs of embeddings were nearer than 1e-4 and count as 1e-4 apart.")
    if any(energy.sampled for energy in energies):
        lines.append("The energies are those of a sample of 20,000 embeddings.")
    lines += [
        f"{method.label} also trained with the images in {path} (setting {setting})."
        for method in methods
        for setting, path in method.paths.items()
    ]
    return lines


def _pixels(base: Recipe) -> str:
    return " x ".join(map(str, base.data.crop)) if isinstance(base.data, SegmentationData) else str(base.data.size)


def _short(changes: dict[str, Any]) -> str:
    return " ".join(f"{name.rpartition('.')[2]}={value:.2g}" for name, value in changes.items())
