"""`csg evaluate --budget N`: a number with an interval from N labels on images that have none."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Literal

from csg.console import log, print_json, show_line, show_table
from csg.datasets.classification import EMBEDDED_DIGITS
from csg.datasets.segmentation import EMBEDDED_SCENES
from csg.errors import InputError, UsageError
from csg.files import absolute, atomic_write, validate_name
from csg.locks import locked, new_folder
from csg.metrics import score_name
from csg_serve.client.endpoints import Servers
from csg_serve.client.loop_thread import run_apart
from csg_serve.client.model import OpenModel, open_source
from csg_serve.client.requests import Sending, check_sending
from csg_serve.evaluate.budget.ask import ask_model
from csg_serve.evaluate.budget.images import find_images
from csg_serve.evaluate.budget.notes import notes
from csg_serve.evaluate.budget.page import write_budget_page
from csg_serve.evaluate.budget.plan import PLAN, LabelPlan, read_plan
from csg_serve.evaluate.budget.result import FEWEST, BudgetResult, budget_result, enough
from csg_serve.evaluate.budget.store import PlanFolder, check_images, new_plan, open_plan
from csg_serve.evaluate.folder import EVALUATIONS
from csg_serve.evaluate.labelling.answers import MergedLabels, read_merged
from csg_serve.evaluate.labelling.task import AskedItem, LabellingTask
from csg_serve.evaluate.session import model_digest

RESULT = "estimate.json"
"""The figures so far, as --json prints them."""


@dataclass(frozen=True, kw_only=True)
class BudgetOptions:
    """Options of `csg evaluate --budget`."""

    source: Servers | Path
    """The servers that have the model; or the folder of a bundle, which answers here."""
    model: str | None = None
    """Name of the model on the servers; None for the only csg model there."""
    data: tuple[str, ...] = ()
    """Folders of images without labels, image files, or an embedded data set."""
    tile: int | None = None
    """Side in pixels of overlapping tiles to send, segmentation only."""
    budget: int
    """Number of images, or of points of images, to label."""
    half_width: float | None = None
    """Half-width of the interval of the mean class accuracy or mIoU at which to stop, as a share."""
    person: str = "me"
    """Who labels: part of the name of the file of labels."""
    label: Literal["open", "print", "no"] = "open"
    """Open the page in a browser; print its address alone; or write the list and estimate, without a page."""
    out: Path | None = None
    """Folder of the plan, which is continued if it has one; None for the next free one in evaluations/."""
    on_unreadable: Literal["fail", "skip"] = "fail"
    """What to do with an image that can't be read: stop, or leave it out and count it."""
    page: Path | None = None
    """Where to write the HTML page; None: nowhere, unless `report`."""
    report: bool = False
    """Write an HTML page."""


def budget_command(options: BudgetOptions, as_json: bool) -> None:
    """Choose what to label, let it be labelled, and show what the labels say.

    Raises:
        UsageError: an option does not fit the model or the plan; another process works in the folder.
        InputError: the images or labels can't be used; the model is not that of the plan.
        ServerError, VerificationError: as `csg_serve.client.model.open_source`.
    """
    validate_name(options.person, "name of a person")
    opened = run_apart(prepared(options))
    merged = _labelled(opened, options)
    result = budget_result(opened, merged, options.half_width)
    if options.report:
        path = options.page or opened.folder / "report.html"
        result = result.model_copy(update={"report": path})
        write_budget_page(path, result)
    text = result.model_dump_json(indent=2)
    atomic_write(opened.folder / RESULT, text.encode() + b"\n")
    if as_json:
        print_json(json.loads(text))
    else:
        show_budget(result)


async def prepared(options: BudgetOptions) -> PlanFolder:
    """The plan, new or continued, with as many items as the budget.

    Raises:
        UsageError, InputError, ServerError, VerificationError: as `budget_command`.
    """
    async with open_source(options.source, options.model) as served:
        if options.out and (options.out / PLAN).is_file():
            with locked(options.out):
                plan = read_plan(options.out)
                check_same_model(plan, served, options)
                opened = open_plan(options.out, plan).with_budget(options.budget)
                check_images(opened.plan)
                opened.write()
            return opened
        if not options.data:
            raise UsageError("--budget needs images to choose from", "name folders of images without labels by --data")
        stem = f"{validate_name(served.name, 'model name')}-{served.version or 'bundle'}-labels"
        with new_folder(options.out, EVALUATIONS, stem) as folder:
            opened = await _new(served, options, folder)
            opened.write()
    return opened


async def _new(served: OpenModel, options: BudgetOptions, folder: Path) -> PlanFolder:
    check_sending(served.card, Sending(options.tile))
    data, skip = tuple(_absolute(source) for source in options.data), options.on_unreadable == "skip"
    found = find_images(data, skip)
    log(f"asking {served.name} about {len(found.images):,} images")
    asked = await ask_model(served, [Path(one.image) for one in found.images], options.tile, skip)
    plan = LabelPlan(
        task=served.card.task,
        model=served.name,
        model_version=served.version,
        bundle=None if isinstance(options.source, Servers) else served.server,
        digest=model_digest(served),
        data=data,
        tile=options.tile,
        classes=tuple(served.card.classes),
        seed=0,
        images=found.images,
        duplicates=found.duplicates,
        unreadable=found.unreadable,
        items=(),
    )
    return new_plan(folder, plan, asked).with_budget(options.budget)


def _absolute(source: str) -> str:
    return source if source in (EMBEDDED_DIGITS, EMBEDDED_SCENES) else str(absolute(Path(source)))


def check_same_model(plan: LabelPlan, served: OpenModel, options: BudgetOptions) -> None:
    """Check that the model and the options are those of a plan: its labels were chosen for that model's answers.

    Raises:
        InputError: the model is another one, or of another version or graph.
        UsageError: other images or tiles are given.
    """
    if (plan.model, plan.model_version, plan.digest) != (served.name, served.version, model_digest(served)):
        was = f"{plan.model} version {plan.model_version}" if plan.model_version else f"{plan.model} of {plan.bundle}"
        now = f"{served.name} version {served.version}" if served.version else f"{served.name} of {served.server}"
        other = "another graph or card of it" if was == now else now
        what = f"the plan in {options.out} was made for {was}, but the model is {other}"
        raise InputError(what, "name that model again, or start a new plan in another folder (--out)")
    if options.data and tuple(map(_absolute, options.data)) != plan.data:
        raise UsageError(f"{options.out} was started with --data {' '.join(plan.data)}", "leave out --data, or --out")
    if options.tile is not None and options.tile != plan.tile:
        raise UsageError(f"{options.out} was started with --tile {plan.tile}", "leave out --tile")


def _labelled(opened: PlanFolder, options: BudgetOptions) -> MergedLabels:
    """The labels of all people, after this person has labelled in the page, unless none is to be opened."""
    plan = opened.plan
    task = LabellingTask(
        title=plan.model,
        classes=plan.classes,
        items=tuple(
            AskedItem(Path(plan.images[one.image].image), one.point, plan.classes[one.predicted]) for one in plan.items
        ),
    )
    stop = partial(enough, opened, options.half_width) if options.half_width is not None else None
    merged = read_merged(opened.folder, task.labelled)
    done = stop(merged) if stop else None
    if options.label == "no" or done or len(merged.labels) == len(plan.items):
        return merged
    from csg_serve.evaluate.labelling.open import LabellingOptions, open_labelling

    how = LabellingOptions(options.person, stop)
    if options.label == "print":
        how = LabellingOptions(options.person, stop, show=None)
    return open_labelling(opened.folder, task, how)


def show_budget(result: BudgetResult) -> None:
    """Print the estimates, or what is missing for them."""
    what = "points" if result.task == "segmentation" else "images"
    if not result.scores:
        show_line(f"labels               {result.labelled} of {result.budget} {what}: at least {FEWEST} are needed")
    else:
        unit = "IoU" if result.task == "segmentation" else "accuracy"
        rows = [
            (name, *((f"{one.value:.1%}", "{:.1%} to {:.1%}".format(*one.interval)) if one else ("-", "no label")))
            for name, one in result.per_class.items()
        ]
        show_table(f"{result.model}, from {result.labelled} labels", ("class", unit, "95 % interval"), rows)
        for name, one in result.scores.items():
            interval = "({:.1%} to {:.1%})".format(*one.interval)
            show_line(f"{score_name(name):<20} {one.value:.1%} {interval}")
        show_line(
            f"labels               {result.labelled} of {result.budget} {what}, {result.cannot_tell} can't be told"
        )
        show_line(f"half the interval    needs about {result.more_to_halve:,} more labels")
    for note in notes(result):
        show_line(note)
    show_line(f"folder               {result.folder}")


def refuse_with_budget(given: dict[str, bool]) -> None:
    """Raise UsageError if an option is given that `--budget` does not have, by its name."""
    for option, is_given in given.items():
        if is_given:
            raise UsageError(f"{option} is for images with labels", f"leave out {option}, or --budget")
