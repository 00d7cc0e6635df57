"""`csg evaluate`: measure a model on labelled real images, through its server or from its bundle."""

from __future__ import annotations

import asyncio
import json
import signal
from dataclasses import replace
from pathlib import Path
from typing import TypeAlias

import numpy as np

from csg.console import log, print_json, show_line
from csg.datasets.segmentation import SegmentationDataset
from csg.errors import UsageError
from csg.folders import kind_of, wrong_folder
from csg_serve.client.endpoints import Servers
from csg_serve.client.loop_thread import run_apart
from csg_serve.evaluate.against import check_requirement, check_same_images, compare_answers, show_against
from csg_serve.evaluate.classification import ClassificationReport, show_classification, summarise_classification
from csg_serve.evaluate.collect import collect
from csg_serve.evaluate.folder import write_result
from csg_serve.evaluate.one_class import one_class_hint
from csg_serve.evaluate.recorded_answers import read_answers, recorded_answers
from csg_serve.evaluate.records import ClassificationResult, SegmentationResult
from csg_serve.evaluate.segmentation import (
    SegmentationReport,
    show_segmentation,
    summarise_segmentation,
    with_examples,
)
from csg_serve.evaluate.session import EvaluateOptions, EvaluationSession, open_evaluation

Report: TypeAlias = ClassificationReport | SegmentationReport


def evaluate_command(options: EvaluateOptions, as_json: bool) -> None:
    """Measure, write the result, and show it.

    Raises:
        UsageError: an option does not fit the model, or the evaluation to resume.
        InputError: the data can't be used, or an image can't be read; there is no evaluation to resume.
        ServerError: no server answers, or it does not answer as the card says.
        VerificationError: the bundle is damaged, or does not answer as the card says.
    """
    try:
        report, page = asyncio.run(evaluate_until_signal(options))
    except asyncio.CancelledError:
        raise KeyboardInterrupt from None
    if as_json:
        print_json(json.loads(report.to_result(page).model_dump_json()))
    else:
        show(report, page)
    if report.against:
        check_requirement(report.against, report.spec.title)


def evaluated(options: EvaluateOptions) -> ClassificationResult | SegmentationResult:
    """Measure, write the result, and return it: for programs, also in a thread or where an event loop is running.

    Raises:
        UsageError, InputError, ServerError, VerificationError: as `evaluate_command`.
    """
    report, page = run_apart(evaluate(options))
    return report.to_result(page)


async def evaluate_until_signal(
    options: EvaluateOptions,
) -> tuple[Report, Path | None]:
    """As `evaluate`; SIGTERM and SIGHUP end it as Ctrl-C does, unless they are ignored, as under nohup."""
    loop, task = asyncio.get_running_loop(), asyncio.current_task()
    assert task
    numbers = [one for one in (signal.SIGTERM, signal.SIGHUP) if signal.getsignal(one) is not signal.SIG_IGN]
    for number in numbers:
        loop.add_signal_handler(number, task.cancel)
    try:
        return await evaluate(options)
    finally:
        for number in numbers:
            loop.remove_signal_handler(number)


async def evaluate(options: EvaluateOptions) -> tuple[Report, Path | None]:
    """Open the evaluation, collect the answers, summarise them, and write the results.

    Returns:
        the figures, and the path of the HTML page, if one was asked for.
    """
    against = options.against
    other = read_answers(await _other_evaluation(options, against.other)) if against else None
    async with open_evaluation(options) as session:
        if other:
            if other.folder.resolve() == session.folder.resolve():
                raise UsageError(f"{other.folder} would be compared with itself", "name another one with --against")
            check_same_images(other, session.dataset)
        await collect(session)
        report = await summarise(session)
        _log_one_class(session, report)
        if against and other:
            own = recorded_answers(session.folder, session.spec, report.classes, session.journal.records())
            report = replace(report, against=compare_answers(other, own, session.dataset.paths, against))
        page = write_page(session, report) if options.report else None
        write_result(report.to_result(page))
    return report, page


def _log_one_class(session: EvaluationSession, report: Report) -> None:
    """Say what to check if the labels have several classes, and all predictions the same one."""
    true, predicted = report.scores.confusion.sum(1), report.scores.confusion.sum(0)
    if np.count_nonzero(true) > 1:
        names = (*report.classes, "no class of the labels")
        found = [name for name, count in zip(names, predicted, strict=False) if count]
        if hint := one_class_hint(session.served.card, found, report.progress.answered):
            log(hint)


async def _other_evaluation(options: EvaluateOptions, other: str) -> Path:
    """The folder of the evaluation to compare with; a bundle or another model on the servers is evaluated first.

    Raises:
        InputError, UsageError: it is none of these, or can't be evaluated now.
        ServerError, VerificationError: as `evaluate`.
    """
    path, source, model = Path(other), options.source, None
    kind = kind_of(path)
    if kind == "evaluation":
        return path
    if kind == "bundle":
        source = path
    elif isinstance(source, Servers) and "/" not in other and not path.exists():
        model = other
    else:
        raise wrong_folder(path, "evaluation", "name the folder of an evaluation or of a bundle")
    if options.resume:
        raise UsageError("--resume continues one evaluation", "evaluate the other model first, and name its folder")
    log(f"first {other}, to compare with")
    plain = replace(options, against=None, out=None, report=False, page=None, mirrored=False)
    report, _ = await evaluate(replace(plain, source=source, model=model))
    return report.folder


async def summarise(session: EvaluationSession) -> Report:
    """Compute the figures from the journal; of a segmenter also write the pictures of the examples."""
    folder, spec, dataset, records = session.folder, session.spec, session.dataset, session.journal.records()
    if isinstance(dataset, SegmentationDataset):
        report = summarise_segmentation(folder, spec, dataset.labels, records)
        return await with_examples(report, session.served, dataset)
    return summarise_classification(folder, spec, dataset.classes, records)


def write_page(session: EvaluationSession, report: Report) -> Path:
    """Write the HTML page, and return its path."""
    from csg_serve.evaluate.report import write_report  # Jinja is imported only when a page is written

    page = session.options.page or session.folder / "report.html"
    dataset = session.dataset
    write_report(page, report, session.served.card, dataset.paths, notes=dataset.notes)
    return page


def show(report: Report, page: Path | None) -> None:
    """Print the figures, and where they are kept."""
    if isinstance(report, SegmentationReport):
        show_segmentation(report)
    else:
        show_classification(report)
    show_line(f"folder               {report.folder}/")
    if report.against:
        show_against(report.against)
    if page:
        show_line(f"report               {page}")
