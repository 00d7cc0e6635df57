"""`csg runs compare`: two runs on the same real images, from the predictions that they keep."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from csg.console import Side, log, print_json, show_line, show_names_table
from csg.errors import InputError, UsageError
from csg.metrics import score_name
from csg.paired_tests import PairedResult, ScoreDifference, compare_classifications, compare_confusions
from csg.parsing import parse_json
from csg_train.runs.finding import require_run
from csg_train.runs.summary import RunSummary, read_summary
from csg_train.training.kept_predictions import read_predictions
from csg_train.training.run_files import ENVIRONMENT, PREDICTIONS

Predictions = dict[str, np.ndarray]
"""`student`, and for classification `labels`, as in `predictions.npz`."""


def compare_command(a: Path, b: Path, as_json: bool) -> None:
    """Test whether run B is better than run A.

    Args:
        a: a finished run.
        b: another one.
        as_json: print one JSON object.

    Raises:
        UsageError: both are the same run.
        InputError: one is not finished or keeps no predictions, or they were not measured on the same images.
    """
    if require_run(a).resolve() == require_run(b).resolve():
        raise UsageError(f"{a} and {b} are the same run", "name two runs")
    runs = _measured(a), _measured(b)
    result = compare_runs(*runs)
    verdicts = {score: result.verdict(score) for score in result.differences}
    if as_json:
        paths = {"a": str(a), "b": str(b), "data": runs[0].measured_data}
        print_json(paths | result.model_dump(mode="json") | {"verdicts": verdicts})
        return
    _show(runs, result)


def compare_runs(a: RunSummary, b: RunSummary) -> PairedResult:
    """The paired test of two runs.

    Args:
        a, b: finished runs that were measured on real images.

    Raises:
        InputError: as `compare_command`.
    """
    first, second = _predictions(a), _predictions(b)
    same = a.task == b.task and a.real_fingerprint == b.real_fingerprint and _classes(a) == _classes(b)
    if not (same and _images_of(first) == _images_of(second)):
        whole = [f"{run.path} on {run.images or 0:,} of {run.measured_data}" for run in (a, b)]
        raise InputError(
            f"the runs were not measured on the same images and classes: {whole[0]}, {whole[1]}",
            "compare runs with the same real images; `csg runs best` shows which belong together",
        )
    if "labels" in first:
        return compare_classifications(first["labels"], first["student"], second["student"])
    return compare_confusions(first["student"], second["student"])


def _measured(folder: Path) -> RunSummary:
    run = read_summary(folder)
    if run.state != "finished":
        problem = f": {run.problem}" if run.problem else ""
        raise InputError(f"run {folder} is {run.state}{problem}", "name a finished run; `csg runs` lists them")
    if run.measured != "real":
        raise InputError(f"run {folder} was not measured on real images", "train with --real-data")
    return run


def _predictions(run: RunSummary) -> Predictions:
    """What the student predicts for each image, as int64, and the labels.

    Raises:
        InputError: the run keeps none, or the file is damaged.
    """
    file = Path(run.path, PREDICTIONS)
    if not file.is_file():
        hint = "train it again, or compare bundles with `csg evaluate --against`"
        raise InputError(f"run {run.path} keeps no predictions: an older csg made it", hint)
    found = read_predictions(file, "restore it, or train the run again")
    return {name: array.astype(np.int64) for name, array in found.items()}


def _images_of(found: Predictions) -> bytes:
    """What is the same for two runs on the same images: the labels, or the pixels of each class in each image."""
    student = found["student"]
    return found["labels"].tobytes() if "labels" in found else student.sum(2).tobytes()


def _classes(run: RunSummary) -> object:
    """Names of the classes in the order of the run's outputs; segmenters are compared in the classes of the images."""
    tree = parse_json(Path(run.path, ENVIRONMENT).read_bytes())
    return tree.get("classes") if run.task == "cls" else None


def _show(runs: tuple[RunSummary, RunSummary], result: PairedResult) -> None:
    log(f"A: {runs[0].path}")
    log(f"B: {runs[1].path}")
    columns: dict[str, Side] = {"score": "left", "A %": "right", "B %": "right", "B - A": "right"}
    columns |= {"95 % interval": "right", "B is": "left"}
    rows = [(score_name(score), *_cells(found), result.verdict(score)) for score, found in result.differences.items()]
    show_names_table(f"{result.images:,} images of {runs[0].measured_data}", columns, rows)
    if result.p_value is not None:
        alone = f"A alone is right on {result.only_a_right}, B alone on {result.only_b_right}"
        show_line(f"{alone}; McNemar's exact p = {result.p_value:.3g}")
    needed = result.images_needed(result.main_score)
    if needed and result.verdict(result.main_score) == "not settled":
        log(f"about {needed:,} images would settle a difference of this size")


def _cells(found: ScoreDifference) -> tuple[str, str, str, str]:
    a, b, difference = (
        "-" if value is None else f"{100 * value:{form}}"
        for value, form in ((found.a, ".2f"), (found.b, ".2f"), (found.difference, "+.2f"))
    )
    if found.low is None or found.high is None:
        return a, b, difference, "-"
    return a, b, difference, f"{100 * found.low:+.2f} to {100 * found.high:+.2f}"
