"""The table of a comparison (`table.md`): a row for each method, and below it what it was measured with."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from tabulate import tabulate

from csg.errors import printable
from csg.files import atomic_write
from csg_train.compare.choice import choice_lines, pair_lines
from csg_train.compare.results import ENERGIES, NUCLEAR_NORM, ComparisonResult, Difference, MethodResult
from csg_train.recipe import Recipe, SegmentationData
from csg_train.tasks import TASKS

TABLE = "table.md"
MORE_COLUMNS = {
    "mirrored": "mirrored %",
    "last": "last weights %",
    "best_on_real": "best on real, chosen on the real set %",
}
"""Columns of results.MORE_SCORES, left out where no run has the figure."""
NORM_COLUMN = "nuclear norm, no labels"
INTERVALS = (
    "The 95 % intervals are over seeds and images; both systems of a difference have the same seeds and images. They "
    "are not corrected for the number of differences."
)
STUDENTS = {
    "average": "The student is the average of the weights over the last part of the training",
    "synthetic": "The student has the weights of the step that is best on held-out synthetic images",
    "swad": "The student is the average of the weights over the steps that SWAD chooses on held-out synthetic images",
    "wise": "The student is interpolated between the weights at the start and at the end (WiSE-FT)",
}


def write_table(folder: Path, base: Recipe, result: ComparisonResult, notes: Sequence[str] = ()) -> None:
    """Write `table.md`.

    Args:
        folder: of the comparison.
        base: the recipe that all methods share.
        result: what the comparison has found.
        notes: more sentences for the end of the text below the table.
    """
    methods, scores = result.methods, TASKS[base.task].scores
    lines = [_table(methods, scores), ""]
    if result.differences:
        lines += [*(f"- {difference_text(difference)}" for difference in result.differences), "", INTERVALS]
    lines += pair_lines([method.label for method in methods], result.pairs)
    lines += [*_caption(base, methods, result.rule), *_more_scores(methods, scores)]
    main, name = next(iter(scores.items()))
    lines += [*choice_lines(methods, main, name.removesuffix(" %")), *_machines(methods)]
    atomic_write(folder / TABLE, "\n".join([*lines, *notes, ""]).encode())


def difference_text(difference: Difference) -> str:
    """A difference in a line.

    Example:
        csg - none: +1.2 points, 95 % interval -0.4 to 2.8, 5 seeds (deviation 1.5), 800 images: not settled
    """
    mean, low, high = (100 * value for value in (difference.mean, difference.low, difference.high))
    seeds = "1 seed (the interval covers the images alone)"
    if difference.deviation is not None:
        seeds = f"{difference.seeds} seeds (deviation {100 * difference.deviation:.1f})"
    return (
        f"{printable(difference.label)} - {printable(difference.reference)}: {mean:+.1f} points, 95 % interval "
        f"{low:.1f} to {high:.1f}, {seeds}, {difference.images} images: {difference.verdict}"
    )


def _table(methods: Sequence[MethodResult], scores: dict[str, str]) -> str:
    def cell(method: MethodResult, name: str, scale: float, digits: int) -> str:
        mean, deviation = method.mean(name), method.deviation(name)
        around = "" if deviation is None else f" ± {scale * deviation:.{digits}f}"
        return "–" if mean is None else f"{scale * mean:.{digits}f}{around}"

    more = {name: column for name, column in MORE_COLUMNS.items() if any(method.values(name) for method in methods)}
    ranking = {NUCLEAR_NORM: NORM_COLUMN} if any(method.values(NUCLEAR_NORM) for method in methods) else {}
    lines = [
        (
            printable(method.label).replace("|", "\\|"),
            str(len(method.runs)),
            *(cell(method, name, 100, 1) for name in (*scores, *more)),
            *(cell(method, name, 1, 3) for name in (*ranking, *ENERGIES)),
            f"{1000 * statistics.fmean(method.values('seconds_per_step')):.0f}",
            f"{statistics.fmean(method.values('peak_memory_mib')):.0f}",
        )
        for method in methods
    ]
    columns = (
        "method",
        "seeds",
        *scores.values(),
        *more.values(),
        *ranking.values(),
        *ENERGIES,
        "ms per step",
        "peak memory MiB",
    )
    align = ("left", *["right"] * (len(columns) - 1))
    return tabulate(lines, columns, tablefmt="pipe", disable_numparse=True, colalign=align)


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


def _more_scores(methods: Sequence[MethodResult], scores: dict[str, str]) -> list[str]:
    """What the columns of MORE_COLUMNS are, and which weights the student has."""
    main, runs = next(iter(scores.values())).removesuffix(" %"), [run for method in methods for run in method.runs]
    lines = [
        f"{text}{'' if all(run.rule == rule for run in runs) else ' in some of the runs'}."
        for rule, text in STUDENTS.items()
        if any(run.rule == rule for run in runs)
    ]
    if any(run.last for run in runs):
        lines.append(f"Last weights: {main} of those of the last step.")
    if any(run.mirrored for run in runs):
        lines.append(f"Mirrored: {main}, with each image and its mirror image averaged.")
    if any(run.best_on_real for run in runs):
        lines.append(
            f"Best on real: {main} at the step where it is highest. This step is chosen on the images that it is "
            "measured on, so the column is an upper bound to be read beside published best epochs, not a result."
        )
    return lines


def _machines(methods: Sequence[MethodResult]) -> list[str]:
    """A sentence if the runs were not all made on the same kind of device and with the same torch."""
    made = {"devices": "device", "versions of torch": "torch"}
    runs = [run for method in methods for run in method.runs]
    found = {what: {getattr(run, name): None for run in runs if getattr(run, name)} for what, name in made.items()}
    differ = [f"{what} ({', '.join(map(str, values))})" for what, values in found.items() if len(values) > 1]
    return [f"The runs were made with different {' and '.join(differ)}."] if differ else []


def _pixels(base: Recipe) -> str:
    return " x ".join(map(str, base.data.crop)) if isinstance(base.data, SegmentationData) else str(base.data.size)


def _short(changes: dict[str, Any]) -> str:
    return " ".join(f"{name.rpartition('.')[2]}={value:.2g}" for name, value in changes.items())
