"""What came out of a comparison: `comparison.json`, `table.md`, `panels/`, and the two figures drawn from these.

They hold all that a later call needs of the systems that are finished: the runs themselves may be gone.
"""

from __future__ import annotations

import io
import json
import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tabulate import tabulate

from csg.console import log
from csg.files import atomic_write
from csg_train.compare.figures import Panel, angles, circle_figure, confusion_figure, save_figure
from csg_train.compare.tuning import RULE
from csg_train.energy import hyperspherical_energy
from csg_train.methods import METHODS
from csg_train.methods.spec import MethodSpec, file_name, method_settings
from csg_train.recipe import Recipe, SegmentationData
from csg_train.tasks import TASKS
from csg_train.training.embed import measure_run
from csg_train.training.run_folder import Run

ENERGIES = ("E_0", "E_1", "E_2")
JSON, TABLE, PANELS = "comparison.json", "table.md", "panels"


@dataclass(frozen=True)
class Try:
    """A tuning run: what it changed, and its score, 0 to 1, on so many held-out synthetic images."""

    changes: dict[str, Any]
    held_out: float
    images: int


def decide(tries: list[Try]) -> Try:
    """The best try if it beats the first by more than the standard error of its score, otherwise the first."""
    best = max(tries, key=lambda t: t.held_out)
    error = math.sqrt(best.held_out * (1 - best.held_out) / best.images)
    return best if best.held_out - tries[0].held_out > error else tries[0]


@dataclass(frozen=True)
class Row:
    """A system with its tuning and the figures of its finished runs, by seed."""

    label: str
    method: str
    settings: dict[str, Any]
    paths: dict[str, str]
    tries: list[Try]
    chosen: dict[str, Any]
    runs: list[dict[str, Any]]

    def mean(self, name: str) -> float:
        """Mean of a figure over the runs."""
        return statistics.fmean(run[name] for run in self.runs)

    def deviation(self, name: str) -> float | None:
        """Standard deviation of a figure over the runs; None for a single one."""
        return statistics.stdev(run[name] for run in self.runs) if len(self.runs) > 1 else None


def new_row(spec: MethodSpec, recipe: Recipe, tries: list[Try], chosen: dict[str, Any]) -> Row:
    """A row without runs; of paths among its settings the names alone, which mean something elsewhere too."""
    paths = method_settings(spec.name, recipe.task, recipe.methods[spec.name]).paths()
    names = {name: path.name for name, path in paths.items()}
    settings = {name: value for name, value in spec.settings.items() if name not in paths}
    return Row(spec.label, spec.name, settings, names, tries, chosen, [])


def read_rows(folder: Path) -> dict[str, Row]:
    """The rows that `comparison.json` holds from earlier calls, by system."""
    file = folder / JSON
    if not file.is_file():
        return {}
    fields = ("label", "method", "settings", "paths", "chosen", "runs")
    rows = (
        Row(tries=[Try(**t) for t in found["tries"]], **{name: found[name] for name in fields})
        for found in json.loads(file.read_text())["methods"]
    )
    return {row.label: row for row in rows}


def in_order(rows: Iterable[Row]) -> list[Row]:
    """Rows in the order of METHODS; methods that are no longer installed come last."""
    order = {name: place for place, name in enumerate(METHODS)}
    return sorted(rows, key=lambda row: order.get(row.method, len(order)))


def figures_of(run: Run) -> dict[str, Any]:
    """What a table says of a finished run, and what it was made with."""
    result, recipe, record = run.result(), run.recipe(), run.environment()
    real, energy = result["real"], result["energy"]
    return {
        "seed": recipe.seed,
        **{name: real[name] for name in TASKS[recipe.task].SCORES},
        **{name: energy[name] for name in ENERGIES},
        "clamped_pairs": energy["clamped"],
        "sampled": energy["sampled"],
        "seconds_per_step": result["seconds_per_step"],
        "peak_memory_mib": result["peak_memory_mib"],
        "steps": result["steps"],
        "images": real["images"],
        **{name: record[name] for name in ("precision", "device", "threads", "commit")},
    }


def summarise(folder: Path, base: Recipe, rows: Sequence[Row], kept: str | None) -> dict[str, Any]:
    """Write `comparison.json` and `table.md` for the rows there are; returns what the former holds.

    Args:
        kept: what the tuning was scored on; None: nothing was tuned.
    """
    scores = TASKS[base.task].SCORES
    score = next(iter(scores.values())).removesuffix(" %")
    rule = "Tuning: " + (RULE.format(kept=kept, score=score) if kept else "none; all have the recipe's settings") + "."
    names = [*scores, *ENERGIES, "seconds_per_step", "peak_memory_mib"]
    methods = [
        asdict(row) | {"mean": {n: row.mean(n) for n in names}, "deviation": {n: row.deviation(n) for n in names}}
        for row in rows
    ]
    result = {"recipe": base.name, "rule": rule, "rows": _lines(rows, scores), "methods": methods}
    atomic_write(folder / JSON, (json.dumps(result, indent=2) + "\n").encode())
    atomic_write(folder / TABLE, (_table(rows, scores) + "\n\n" + _caption(base, rows, rule) + "\n").encode())
    return result


def _lines(rows: Sequence[Row], scores: dict[str, str]) -> list[dict[str, Any]]:
    """A line for each run, for scripts."""
    return [
        {
            "method": row.label,
            "seed": run["seed"],
            **{name: run[name] for name in scores},
            "hse": {name.removeprefix("E_"): run[name] for name in ENERGIES},
            "step_ms": 1000 * run["seconds_per_step"],
            "peak_mb": run["peak_memory_mib"],
        }
        for row in rows
        for run in row.runs
    ]


def _table(rows: Sequence[Row], scores: dict[str, str]) -> str:
    def cell(row: Row, name: str, scale: float, digits: int) -> str:
        deviation = row.deviation(name)
        around = "" if deviation is None else f" ± {scale * deviation:.{digits}f}"
        return f"{scale * row.mean(name):.{digits}f}{around}"

    lines = [
        (
            row.label,
            str(len(row.runs)),
            *(cell(row, name, 100, 1) for name in scores),
            *(cell(row, name, 1, 3) for name in ENERGIES),
            f"{1000 * row.mean('seconds_per_step'):.0f}",
            f"{row.mean('peak_memory_mib'):.0f}",
        )
        for row in rows
    ]
    columns = ("method", "seeds", *scores.values(), *ENERGIES, "ms per step", "peak memory MiB")
    return tabulate(lines, columns, tablefmt="pipe", disable_numparse=True, colalign=("left", *["right"] * 8))


def _caption(base: Recipe, rows: Sequence[Row], rule: str) -> str:
    runs = [run for row in rows for run in row.runs]
    first = runs[0]

    def every(name: str) -> str:
        return ", ".join(map(str, dict.fromkeys(run[name] for run in runs)))

    lines = [
        f"Recipe {base.name}: {base.model.backbone}, {_pixels(base)} px, {first['steps']} steps of {base.optim.batch}, "
        f"trained on {', '.join(Path(s).name for s in base.data.train)}, measured on {first['images']} images of "
        f"{', '.join(Path(s).name for s in base.data.real)}; mean ± deviation over seeds; "
        f"{every('precision')} on {every('device')}, threads {every('threads')}.",
        "E_s: hyperspherical energy of the pooled real embeddings; lower is more diverse.",
        rule,
    ]
    if any(row.chosen for row in rows):
        lines.append("Chosen: " + "; ".join(f"{row.label} {_words(row.chosen)}" for row in rows) + ".")
    if clamped := sum(run["clamped_pairs"] for run in runs):
        lines.append(f"{clamped} pairs of embeddings were nearer than 1e-4 and count as 1e-4 apart.")
    if any(run["sampled"] for run in runs):
        lines.append("The energies are those of a sample of 20,000 embeddings.")
    lines += [
        f"{row.label} also used the files in {path} ({setting}) in training."
        for row in rows
        for setting, path in row.paths.items()
    ]
    return "\n".join(lines)


def _pixels(base: Recipe) -> str:
    return " x ".join(map(str, base.data.crop)) if isinstance(base.data, SegmentationData) else str(base.data.size)


def _words(changes: dict[str, Any]) -> str:
    return " ".join(f"{name.rpartition('.')[2]}={value:.2g}" for name, value in changes.items())


def keep_panel(folder: Path, spec: MethodSpec, run: Run) -> None:
    """Measure a run once more, and keep what the figures need of it in `panels/`."""
    images, measured = measure_run(run)
    score = measured.evaluation.model_dump()[next(iter(TASKS[run.recipe().task].SCORES))]
    energy, buffer = hyperspherical_energy(measured.embeddings), io.BytesIO()
    np.savez_compressed(
        buffer,
        angles=angles(measured.embeddings).astype(np.float32),
        true=np.array([], np.int64) if measured.true is None else measured.true,
        confusion=measured.confusion,
        classes=np.array(images.class_spec.names),
        score=score,
        energies=np.array([getattr(energy, name) for name in ENERGIES] if energy else []),
    )
    atomic_write(folder / PANELS / f"{spec.file_name}.npz", buffer.getvalue())


def draw(folder: Path, labels: Sequence[str]) -> None:
    """`circle.png` and `confusion.png`, from the panels of the systems that have one."""
    log("drawing the figures")
    panels, classes = [], ()
    for name in labels:
        file = folder / PANELS / f"{file_name(name)}.npz"
        if file.is_file():
            with np.load(file) as kept:
                classes = tuple(kept["classes"].tolist())
                panels.append(
                    Panel(
                        name=name,
                        score=float(kept["score"]),
                        angles=kept["angles"],
                        true=kept["true"] if len(kept["true"]) else None,
                        confusion=kept["confusion"],
                        energies=tuple(kept["energies"].tolist()),
                    )
                )
    if not panels:
        return
    save_figure(circle_figure(panels, classes), folder / "circle.png")
    save_figure(confusion_figure(panels, classes), folder / "confusion.png")
