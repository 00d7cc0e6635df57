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
from csg_serve.client.model import OpenModel, title
from csg_serve.client.requests import Answer, Sending
from csg_serve.client.stream import iter_answers, probabilities
from csg_serve.evaluate.records import AnswerRecord, ClassificationAnswer, PixelCells, SegmentationAnswer, Skipped
from csg_serve.evaluate.session import EvaluationSession

MakeRecord = Callable[[int, Answer], Awaitable[AnswerRecord]]
"""Makes the record of an image from its index and its answer."""


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
    with progress_bar(title(served), len(dataset), journal.done) as advance:
        sending = Sending(session.spec.tile, session.spec.mirrored)
        answers = iter_answers(served, paths, sending, ordered=session.options.ordered)
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
        return await make_record(index, answer)
    except InputError as error:
        if session.options.on_unreadable == "fail":
            raise InputError(error.message, f"{error.hint}, or skip such images with --on-unreadable skip") from None
        log(f"skipped: {error.message}")
        return Skipped(index=index, elapsed_s=session.journal.elapsed_s, reason=error.message)


def _classification_record(session: EvaluationSession, dataset: ClassificationDataset) -> MakeRecord:
    async def make(index: int, answer: Answer) -> ClassificationAnswer:
        assert not isinstance(answer.prediction, InputError)
        shares = probabilities(answer.prediction)
        predicted = int(shares.argmax())
        return ClassificationAnswer(
            index=index,
            elapsed_s=session.journal.elapsed_s,
            latency_ms=_latency_ms(answer),
            true=int(dataset.labels[index]),
            predicted=predicted,
            confidence=float(round(shares[predicted], 6)),
            mirrored=None if answer.mirrored is None else int(answer.mirrored),
        )

    return make


def _segmentation_record(session: EvaluationSession, dataset: SegmentationDataset) -> MakeRecord:
    table = class_index_table(session.served.card.class_spec, dataset.labels)
    confusion = PixelConfusion(len(dataset.labels.classes))

    def count(index: int, *label_maps: np.ndarray) -> list[PixelCells]:
        height, width = label_maps[0].shape  # the size of the image, which is not decoded again for its labels
        labels, found = dataset.load_labels(index, (width, height)), []
        for label_map in label_maps:
            matrix = confusion.matrix_of(labels, table[label_map]).ravel()
            cells = np.flatnonzero(matrix)
            found.append(PixelCells(cells=tuple(cells.tolist()), pixels=tuple(matrix[cells].tolist())))
        return found

    async def make(index: int, answer: Answer) -> SegmentationAnswer:
        maps = [one for one in (answer.prediction, answer.mirrored) if isinstance(one, np.ndarray)]
        plain, *mirrored = await asyncio.to_thread(count, index, *maps)
        return SegmentationAnswer(
            index=index,
            elapsed_s=session.journal.elapsed_s,
            latency_ms=_latency_ms(answer),
            cells=plain.cells,
            pixels=plain.pixels,
            mirrored=mirrored[0] if mirrored else None,
        )

    return make


def _latency_ms(answer: Answer) -> float:
    return round(1000 * answer.request_s, 3)


async def iter_predictions(
    served: OpenModel, paths: Sequence[Path], tile: int | None = None
) -> AsyncGenerator[tuple[int, np.ndarray], None]:
    """The index of each image, in order, and the model's prediction, behind a progress bar.

    Raises:
        InputError: an image can't be read.
        UsageError, ServerError: as `csg_serve.client.stream.iter_answers`.
    """
    with progress_bar(title(served), len(paths)) as advance:
        async with aclosing(iter_answers(served, paths, Sending(tile))) as answers:
            async for answer in answers:
                advance(1)
                if isinstance(answer.prediction, InputError):
                    raise answer.prediction
                yield answer.index, answer.prediction
