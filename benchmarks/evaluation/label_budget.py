"""Few labels: how close the estimates come, and how often their intervals hold the truth, on labelled images whose
labels are hidden.

    python -m benchmarks.evaluation.label_budget ask BUNDLE IMAGES OUT.npz      once for each set of images
    python -m benchmarks.evaluation.label_budget simulate *.npz --draws 2000    a table for docs/results/label-budget.md

"Random choice" labels images, or points of images, with equal chances, and takes the score of these. The ratio of
labels is what csg needs for the root-mean-square error of random choice, over the labels of random choice; between the
budgets that are simulated it is interpolated on logarithmic scales.
"""

from __future__ import annotations

import argparse
import asyncio
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from csg.card import SegmentationInput
from csg.datasets.classification import read_classification_dataset
from csg.datasets.label_sets import IGNORED, class_index_table
from csg.datasets.segmentation import read_segmentation_dataset
from csg.estimates.candidates import Candidates, Floats, Ints
from csg.estimates.choice import Order, draw_order
from csg.estimates.estimate import Estimate, LabelledSample
from csg.estimates.report import Task, estimate_mean, task_chances
from csg.estimates.scores import accuracy
from csg.estimates.spread import chain_of_alike
from csg_serve.client.bundle_model import open_bundle
from csg_serve.evaluate.budget.ask import ask_model
from csg_serve.evaluate.budget.result import FIRST_LOOK

BUDGETS = (50, 100, 200, 500)
BETWEEN = (15, 25, 35, 70, 140, 300)
"""More budgets, at which a tenth of the draws give the error: for the interpolation alone."""
MOST = 5_000
"""Candidates of a set, at most."""
NAMES = {"classification": ("accuracy", "mean class accuracy"), "segmentation": ("pixel accuracy", "mIoU")}


@dataclass(frozen=True)
class HiddenLabels:
    """A set of images with the model's answers and the labels."""

    name: str
    task: Task
    candidates: Candidates
    true: Ints
    truth: tuple[float, float]
    """The overall and the mean score of all images."""


def scores_of(matrix: Floats, task: Task) -> tuple[float, float]:
    """Overall and mean score of a confusion matrix, as `csg evaluate` defines them."""
    found, right = matrix.sum(1), matrix.diagonal()
    below = found + matrix.sum(0) - right if task == "segmentation" else found
    with np.errstate(invalid="ignore", divide="ignore"):
        return float(right.sum() / matrix.sum()), float(np.nanmean(right / below))


async def ask(bundle: Path, data: str, out: Path) -> None:
    """Ask a model about all images, and keep its answers with the labels."""
    async with open_bundle(bundle) as model:
        card = model.card
        matrix = np.zeros((len(card.classes), len(card.classes)))
        if not isinstance(card.input, SegmentationInput):
            dataset = read_classification_dataset((data,), card.classes)
            asked = await ask_model(model, dataset.paths, None, False)
            true = dataset.labels[asked.image]
        else:
            scenes = read_segmentation_dataset((data,), card.label_set)
            assert (class_index_table(card.class_spec, scenes.labels)[: len(card.classes)] < IGNORED).all()
            asked = await ask_model(model, scenes.paths, None, False)
            assert asked.point is not None
            true = np.empty(len(asked.image), np.int64)
            for image in range(len(scenes)):
                rows, (_, mask) = np.flatnonzero(asked.image == image), scenes.load(image)
                true[rows] = mask[asked.point[rows, 1], asked.point[rows, 0]]
            true[true == IGNORED] = -1
        found = asked.candidates
        told = true >= 0
        np.add.at(matrix, (true[told], found.predicted[told]), found.size[told])
        truth = scores_of(matrix, card.task)
        arrays = {"probabilities": found.probabilities, "size": found.size, "predicted": found.predicted, "true": true}
        if found.place is not None:
            arrays["place"] = found.place
        np.savez_compressed(out, task=card.task, truth=truth, **arrays)  # type: ignore[arg-type]
        print(f"{out.stem}: {len(true):,} candidates, {truth[0]:.3f}, {truth[1]:.3f}")


def read(path: Path) -> HiddenLabels:
    """What `ask` has kept, shuffled: folders are listed class after class, which must say nothing.

    Of more than `MOST` candidates so many are kept; the truth is then theirs.
    """
    with np.load(path) as kept:
        task: Task = "segmentation" if str(kept["task"]) == "segmentation" else "classification"
        rows = np.random.default_rng(0).permutation(len(kept["true"]))[:MOST]
        true, truth = kept["true"][rows], tuple(kept["truth"].tolist())
        place = kept["place"][rows] if "place" in kept else None
        probabilities = kept["probabilities"][rows].astype(np.float64)
        found = Candidates(kept["size"][rows], probabilities, kept["predicted"][rows], place=place)
    if len(rows) == MOST:
        matrix, told = np.zeros((found.classes,) * 2), true >= 0
        np.add.at(matrix, (true[told], found.predicted[told]), found.size[told])
        truth = scores_of(matrix, task)
    return HiddenLabels(path.stem, task, found, true, truth)


class Orders:
    """The orders in which csg would ask for the labels of a set, and those of random choice.

    Args:
        hidden: the set.
    """

    def __init__(self, hidden: HiddenLabels):
        self.chances = task_chances(hidden.candidates, hidden.task)
        self.chain = chain_of_alike(hidden.candidates)
        self.equal = hidden.candidates.size / hidden.candidates.size.sum()

    def draw(self, seed: int) -> Order:
        """An order of csg."""
        return draw_order(self.chances, seed, self.chain)

    def draw_random(self, seed: int) -> Order:
        """An order of random choice."""
        return draw_order(self.equal, seed + 1_000_000)


def estimates_from(hidden: HiddenLabels, order: Order, budget: int) -> tuple[Estimate, Estimate]:
    """The two estimates from the first labels of an order."""
    rows = order.rows[:budget]
    sample = LabelledSample(hidden.candidates, order.inclusion(budget), rows, hidden.true[rows])
    return sample.estimate(accuracy), estimate_mean(sample, hidden.task)


def random_scores(hidden: HiddenLabels, order: Order, budget: int) -> Floats:
    """The two scores of the first labels of an order, as if they were all, (2,)."""
    rows = order.rows[:budget]
    rows, matrix = rows[hidden.true[rows] >= 0], np.zeros((hidden.candidates.classes,) * 2)
    np.add.at(matrix, (hidden.true[rows], hidden.candidates.predicted[rows]), 1)
    return np.array(scores_of(matrix, hidden.task))


def stopped(hidden: HiddenLabels, order: Order, half_width: float) -> tuple[int, bool]:
    """Labels until --half-width stops, and whether the interval of the mean then holds the truth."""
    rows, last = order.rows, min(1000, len(hidden.true))
    for budget in (*range(FIRST_LOOK, last, 10), last):
        part = rows[:budget]
        sample = LabelledSample(hidden.candidates, order.inclusion(budget), part, hidden.true[part])
        mean = estimate_mean(sample, hidden.task)
        if mean.half_width <= half_width or budget == last:
            break
    return budget, bool(mean.low <= hidden.truth[1] <= mean.high)


def simulate(hidden: HiddenLabels, draws: int) -> list[float]:
    """Print the rows of a set; return the ratios of labels."""
    orders, ratios = Orders(hidden), []
    budgets = [one for one in sorted((*BUDGETS, *BETWEEN)) if one < len(hidden.true)]
    found: dict[int, list[tuple[tuple[Estimate, Estimate], Floats]]] = {n: [] for n in budgets}
    for seed in range(draws):
        order, random_order = orders.draw(seed), orders.draw_random(seed)
        for n in (n for n in budgets if n in BUDGETS or seed < max(1, draws // 10)):
            found[n].append((estimates_from(hidden, order, n), random_scores(hidden, random_order, n)))
    for place, name in enumerate(NAMES[hidden.task]):
        truth = hidden.truth[place]
        own = {n: [one[0][place] for one in found[n]] for n in budgets}
        error = {n: _rms([one.value - truth for one in own[n]]) for n in budgets}
        falling = np.minimum.accumulate([error[n] for n in budgets])
        for n in (one for one in BUDGETS if one in budgets):
            random = _rms([one[1][place] - truth for one in found[n]])
            needed = np.exp(np.interp(-np.log(random), -np.log(falling), np.log(budgets)))
            ratios.append(float(needed / n))
            holds = np.mean([one.low <= truth <= one.high for one in own[n]])
            half = np.mean([one.half_width for one in own[n]])
            bias = np.mean([one.value for one in own[n]]) - truth
            errors = f"{truth:.1%} | {bias:+.2%} | {error[n]:.2%} | {random:.2%} | {ratios[-1]:.2f}"
            print(f"| {hidden.name} | {name} | {n} | {errors} | {holds:.1%} | {half:.1%} |", flush=True)
    return ratios


def _rms(errors: list[float]) -> float:
    return float(np.sqrt(np.mean(np.square(errors))))


def main() -> None:
    """Run one of the two steps."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    steps = parser.add_subparsers(dest="step", required=True)
    asking = steps.add_parser("ask")
    for name in ("bundle", "data", "out"):
        asking.add_argument(name)
    simulating = steps.add_parser("simulate")
    simulating.add_argument("files", nargs="+", type=Path)
    simulating.add_argument("--draws", type=int, default=2000)
    simulating.add_argument("--half-width", type=float, help="stop at this half-width instead")
    given = parser.parse_args()
    if given.step == "ask":
        asyncio.run(ask(Path(given.bundle), given.data, Path(given.out)))
    elif given.half_width:
        for hidden in map(read, given.files):
            orders = Orders(hidden)
            ends = [stopped(hidden, orders.draw(seed), given.half_width) for seed in range(given.draws)]
            labels, holds = np.mean(ends, 0)
            print(f"| {hidden.name} | {given.half_width:.1%} | {labels:.0f} | {holds:.1%} |", flush=True)
    else:
        print("| set | score | labels | truth | bias | error | of random choice | ratio of labels | coverage | half |")
        print("|---|---|---:|---:|---:|---:|---:|---:|---:|---:|")
        ratios = [one for file in given.files for one in simulate(read(file), given.draws)]
        print(f"\nmean ratio {np.mean(ratios):.2f}, largest {max(ratios):.2f}")


if __name__ == "__main__":
    main()
