"""How well systems are ranked without labels of real images: by the nuclear norm, and on held-out synthetic images.

    python -m benchmarks.training.ranking comparisons/pacs comparisons/vehicles

Each folder is that of a finished comparison. Prints the rank correlations with the score on the real images
(Spearman's rho, Kendall's tau-b) over systems, by their means over seeds, and over single runs; and the oracle gap. The
nuclear norm of runs of an older csg, which has none, is measured now, for which the runs must still be there.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

import torch
from scipy import stats

from csg_train.compare.choice import choice_lines, synthetic_score
from csg_train.compare.plan import PLAN, Plan
from csg_train.compare.results import NUCLEAR_NORM, MethodResult, RunFigures, read_results
from csg_train.methods.spec import file_name
from csg_train.recipe import parse_recipe
from csg_train.tasks import TASKS, predicting
from csg_train.training.run_folder import Run
from csg_train.training.student import load_student


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folders", nargs="+", type=Path)
    for folder in parser.parse_args().folders:
        report(folder)


def report(folder: Path) -> None:
    """Print how well the systems of a comparison are ranked."""
    plan = Plan.model_validate_json((folder / PLAN).read_text())
    task = TASKS[parse_recipe(plan.recipe, str(folder / PLAN)).task]
    (score, name), *_ = task.scores.items()
    found = read_results(folder, plan.recipe["task"]).values()
    methods = [measured(folder, method) for method in found if method.runs]
    runs = [run for method in methods for run in method.runs]
    print(f"{folder}: {len(methods)} systems, {len(runs)} runs, {name.removesuffix(' %')}")
    true = [method.mean(score) for method in methods]
    correlate("systems, nuclear norm", [method.mean(NUCLEAR_NORM) for method in methods], true)
    correlate("systems, held-out synthetic images", [synthetic_score(method) for method in methods], true)
    correlate("runs, nuclear norm", [run.nuclear_norm for run in runs], [run.value(score) for run in runs])
    for line in choice_lines(methods, score, name.removesuffix(" %")):
        print(f"  {line}")


def correlate(what: str, ranking: Sequence[float | None], true: Sequence[float | None]) -> None:
    """Print two rank correlations; a system without a figure counts in none."""
    pairs = [(one, other) for one, other in zip(ranking, true, strict=True) if one is not None and other is not None]
    if len(pairs) < 3:
        print(f"  {what}: too few have the figure")
        return
    rho, tau = (correlation(*zip(*pairs, strict=True)).statistic for correlation in (stats.spearmanr, stats.kendalltau))
    print(f"  {what}: Spearman {rho:.2f}, Kendall {tau:.2f} ({len(pairs)})")


def measured(folder: Path, method: MethodResult) -> MethodResult:
    """The method with a nuclear norm for each of its runs that is still there."""
    return method.model_copy(update={"runs": tuple(with_norm(folder, method.label, run) for run in method.runs)})


def with_norm(folder: Path, label: str, figures: RunFigures) -> RunFigures:
    """The figures of a run with its nuclear norm, if its folder is there or it has one already."""
    run = Run(folder / "runs" / f"{file_name(label)}-{figures.seed}")
    if figures.nuclear_norm is not None or not run.finished:
        return figures
    recipe, classes, device = run.recipe(), run.class_spec(), torch.device("cpu")
    task = TASKS[recipe.task]
    images = task.read_real(recipe, classes, recipe.data.real)
    with predicting(load_student(run)) as predict:
        found = task.measure(predict, classes, images, recipe, device=device)
    return figures.model_copy(update={NUCLEAR_NORM: found.nuclear_norm})


if __name__ == "__main__":
    main()
