"""Send images to a served model, and record the answers in the journal."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from pathlib import Path

import numpy as np

from csg.console import log, progress_bar
from csg.datasets.classification import ClassificationDataset
from csg.datasets.label_sets import class_index_table
from csg.datasets.segmentation import SegmentationDataset
from csg.errors import InputError
from csg.metrics import PixelConfusion
from csg_serve.client.client import Answer, iter_answers, probabilities
from csg_serve.client.connection import ServedModel
from csg_serve.evaluate.records import AnswerRecord, ClassificationAnswer, SegmentationAnswer, Skipped
from csg_serve.evaluate.session import EvaluationSession

MakeRecord = Callable[[int, np.ndarray, float], Awaitable[AnswerRecord]]
"""Makes the record of an image from its index, the model's prediction and the latency in milliseconds."""


async def collect(session: EvaluationSession) -> None:
    """Send every image that has no record in the journal yet, and record its answer.

    Raises:
        InputError: an image can't be read, or its mask can't be used, and `on_unreadable` is "fail".
        ServerError: the server is gone, took too long, or does not answer as the card says.
    """
    if isinstance(session.dataset, SegmentationDataset):
        await collect_into_journal(session, _segmentation_record(session, session.dataset))
    else:
        await collect_into_journal(session, _classification_record(session, session.dataset))


async def collect_into_journal(session: EvaluationSession, make_record: MakeRecord) -> None:
    """Send the pending images, and append a record for each answer; raises as `collect`."""
    served, dataset, journal = session.served, session.dataset, session.journal
    pending = journal.pending()
    if not pending:
        return
    journal.start_session(served.server)
    paths = [dataset.paths[index] for index in pending]
    with progress_bar(f"{served.name} version {served.version}", len(dataset), journal.done) as advance:
        answers = iter_answers(served, paths, session.spec.tile, ordered=session.options.ordered)
        async with aclosing(answers):
            async for answer in answers:
                journal.add(await _record(session, pending[answer.index], answer, make_record))
                advance(1)


async def _record(
    session: EvaluationSession, index: int, answer: Answer, make_record: MakeRecord
) -> AnswerRecord | Skipped:
    try:
        if isinstance(answer.prediction, InputError):
            raise answer.prediction
        return await make_record(index, answer.prediction, round(1000 * answer.request_s, 3))
    except InputError as error:
        if session.options.on_unreadable == "fail":
            raise InputError(error.message, f"{error.hint}, or skip such images with --on-unreadable skip") from None
        log(f"skipped: {error.message}")
        return Skipped(index=index, elapsed_s=session.journal.elapsed_s, reason=error.message)


def _classification_record(session: EvaluationSession, dataset: ClassificationDataset) -> MakeRecord:
    async def make(index: int, logits: np.ndarray, latency_ms: float) -> ClassificationAnswer:
        shares = probabilities(logits)
        predicted = int(shares.argmax())
        return ClassificationAnswer(
            index=index,
            elapsed_s=session.journal.elapsed_s,
            latency_ms=latency_ms,
            true=int(dataset.labels[index]),
            predicted=predicted,
            confidence=float(round(shares[predicted], 6)),
        )

    return make


def _segmentation_record(session: EvaluationSession, dataset: SegmentationDataset) -> MakeRecord:
    table = class_index_table(session.served.card.class_spec, dataset.labels)
    confusion = PixelConfusion(len(dataset.labels.classes))

    def count(index: int, label_map: np.ndarray) -> tuple[tuple[int, ...], tuple[int, ...]]:
        height, width = label_map.shape  # the size of the image, which is not decoded again for its labels
        matrix = confusion.matrix_of(dataset.load_labels(index, (width, height)), table[label_map]).ravel()
        cells = np.flatnonzero(matrix)
        return tuple(cells.tolist()), tuple(matrix[cells].tolist())

    async def make(index: int, label_map: np.ndarray, latency_ms: float) -> SegmentationAnswer:
        cells, pixels = await asyncio.to_thread(count, index, label_map)
        elapsed_s = session.journal.elapsed_s
        return SegmentationAnswer(index=index, elapsed_s=elapsed_s, latency_ms=latency_ms, cells=cells, pixels=pixels)

    return make


async def iter_predictions(
    served: ServedModel, paths: Sequence[Path], tile: int | None = None
) -> AsyncGenerator[tuple[int, np.ndarray], None]:
    """The index of each image, in order, and the model's prediction, behind a progress bar.

    Raises:
        InputError: an image can't be read.
        UsageError, ServerError: as `csg_serve.client.client.iter_answers`.
    """
    with progress_bar(f"{served.name} version {served.version}", len(paths)) as advance:
        async with aclosing(iter_answers(served, paths, tile)) as answers:
            async for answer in answers:
                advance(1)
                if isinstance(answer.prediction, InputError):
                    raise answer.prediction
                yield answer.index, answer.prediction
