"""What came out of a comparison: `comparison.json`, `table.md`, and the two figures."""

from __future__ import annotations

import json
import math
import statistics
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tabulate import tabulate

from csg.console import say
from csg.files import write_bytes
from csg_train.embed import measure_run
from csg_train.energy import hyperspherical_energy
from csg_train.figures import Panel, circle_figure, confusion_figure, save_figure
from csg_train.recipe import Recipe
from csg_train.run import Run
from csg_train.systems import RULE, System

COLUMNS = (
    "system",
    "seeds",
    "mean class accuracy %",
    "accuracy %",
    "E_0",
    "E_1",
    "E_2",
    "ms per step",
    "peak memory MiB",
)


@dataclass(frozen=True)
class Try:
    """A tuning run: what it changed, and its mean class accuracy on so many held-out synthetic images."""

    changes: dict[str, Any]
    score: float
    images: int


def decide(tries: list[Try]) -> Try:
    """The best try if it beats the first by more than the standard error of its score, otherwise the first."""
    best = max(tries, key=lambda t: t.score)
    error = math.sqrt(best.score * (1 - best.score) / best.images)
    return best if best.score - tries[0].score > error else tries[0]


@dataclass(frozen=True)
class Row:
    """A system with its tuning and its finished runs, one for each seed."""

    system: System
    tries: list[Try]
    chosen: dict[str, Any]
    runs: list[Run]


def summarise(folder: Path, base: Recipe, rows: list[Row], kept: str | None) -> dict[str, Any]:
    """Write `comparison.json` and `table.md` for the rows there are; returns what the former holds.

    Args:
        kept: what the tuning was scored on; None: nothing was tuned.
    """
    rule = f"Tuning: {RULE.format(kept=kept)}." if kept else "Tuning: none; every system has the recipe's settings."
    systems = [_summary(row) for row in rows]
    result = {"recipe": base.name, "rule": rule, "systems": systems}
    write_bytes(folder / "comparison.json", (json.dumps(result, indent=2) + "\n").encode())
    write_bytes(folder / "table.md", (_table(systems) + "\n\n" + _caption(base, rows, rule) + "\n").encode())
    return result


def earlier_rows(folder: Path) -> list[Row]:
    """The rows that `comparison.json` holds from earlier calls."""
    file = folder / "comparison.json"
    if not file.is_file():
        return []
    rows = []
    for found in json.loads(file.read_text())["systems"]:
        system = System(found["system"], found["method"], found["settings"])
        tries = [Try(t["changes"], t["held_out_mean_class_accuracy"], t["images"]) for t in found["tries"]]
        runs = [Run(folder / "runs" / f"{system.folder}-{run['seed']}") for run in found["runs"]]
        rows.append(Row(system, tries, found["chosen"], runs))
    return rows


def _summary(row: Row) -> dict[str, Any]:
    runs = []
    for run in row.runs:
        result, real = run.result(), run.result()["real"]
        runs.append(
            {
                "seed": run.recipe().seed,
                "mean_class_accuracy": real["mean_class_accuracy"],
                "accuracy": real["accuracy"],
                **{name: result["energy"][name] for name in ("E_0", "E_1", "E_2")},
                "clamped_pairs": result["energy"]["clamped"],
                "sampled": result["energy"]["sampled"],
                "seconds_per_step": result["seconds_per_step"],
                "peak_memory_mib": result["peak_memory_mib"],
            }
        )
    figures = [name for name in runs[0] if name not in ("seed", "sampled")]
    return {
        "system": row.system.name,
        "method": row.system.method,
        "settings": row.system.settings,
        "tries": [
            {"changes": t.changes, "held_out_mean_class_accuracy": t.score, "images": t.images} for t in row.tries
        ],
        "chosen": row.chosen,
        "runs": runs,
        "mean": {name: statistics.fmean(run[name] for run in runs) for name in figures},
        "deviation": {name: statistics.stdev(run[name] for run in runs) if len(runs) > 1 else None for name in figures},
    }


def _table(systems: list[dict[str, Any]]) -> str:
    def cell(system: dict[str, Any], name: str, scale: float, digits: int, spread: bool = True) -> str:
        mean, deviation = scale * system["mean"][name], system["deviation"][name]
        around = f" ± {scale * deviation:.{digits}f}" if spread and deviation is not None else ""
        return f"{mean:.{digits}f}{around}"

    lines = [
        (
            system["system"],
            str(len(system["runs"])),
            cell(system, "mean_class_accuracy", 100, 1),
            cell(system, "accuracy", 100, 1),
            *(cell(system, name, 1, 3) for name in ("E_0", "E_1", "E_2")),
            cell(system, "seconds_per_step", 1000, 0, spread=False),
            cell(system, "peak_memory_mib", 1, 0, spread=False),
        )
        for system in systems
    ]
    return tabulate(lines, COLUMNS, tablefmt="pipe", disable_numparse=True, colalign=("left", *["right"] * 8))


def _caption(base: Recipe, rows: list[Row], rule: str) -> str:
    first = rows[0].runs[0]
    result, real, record = first.result(), first.result()["real"], first.environment()
    seeds = sorted({run.recipe().seed for row in rows for run in row.runs})
    lines = [
        f"Recipe {base.name}: {base.model.backbone}, {base.data.size} px, {result['steps']} steps of "
        f"{base.optim.batch}, trained on {', '.join(Path(s).name for s in base.data.train)}, measured on "
        f"{real['images']} images of {Path(real['dataset']).name}; "
        f"mean ± deviation over seeds {', '.join(map(str, seeds))}; {record['precision']} on {record['device']}, "
        f"threads {record['threads']}.",
        "E_s: hyperspherical energy of the pooled real embeddings; lower is more diverse.",
        rule,
    ]
    if any(row.chosen for row in rows):
        lines.append("Chosen: " + "; ".join(f"{row.system.name} {_words(row.chosen)}" for row in rows) + ".")
    runs = [run for row in rows for run in row.runs]
    if clamped := sum(run.result()["energy"]["clamped"] for run in runs):
        lines.append(f"{clamped} pairs of embeddings were nearer than 1e-4 and count as 1e-4 apart.")
    if any(run.result()["energy"]["sampled"] for run in runs):
        lines.append("The energies are those of a sample of 20,000 embeddings.")
    if styled := [row.system for row in rows if "styles" in row.system.settings]:
        lines.append(f"{styled[0].name} saw the style images in {Path(styled[0].settings['styles']).name} in training.")
    return "\n".join(lines)


def _words(changes: dict[str, Any]) -> str:
    return " ".join(f"{name.removeprefix('optim.')}={value:.2g}" for name, value in changes.items())


def draw(folder: Path, rows: list[Row]) -> None:
    """The figures of the first seed's runs: `circle.png` and `confusion.png`."""
    say("drawing the figures")
    panels: list[Panel] = []
    classes: tuple[str, ...] = ()
    for row in rows:
        images, measured = measure_run(row.runs[0])
        classes = images.classes
        panels.append(Panel(row.system.name, measured, hyperspherical_energy(measured.embeddings)))
    save_figure(circle_figure(panels, classes), folder / "circle.png")
    save_figure(confusion_figure(panels, classes), folder / "confusion.png")
