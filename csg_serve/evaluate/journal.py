"""The journal of an evaluation: one JSON line per image, written as soon as its answer arrives.

All figures are computed from the journal, so an interrupted evaluation ends with the same figures as an
undisturbed one. A line that appears twice counts once, and an image has one record: the first.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from csg.errors import InputError
from csg.records import Record
from csg_serve.evaluate.records import (
    JOURNAL_RECORD,
    AnswerRecord,
    ClassificationAnswer,
    JournalRecord,
    SegmentationAnswer,
    Session,
    Skipped,
)

JOURNAL = "journal.jsonl"
REPAIR = "remove the line, or start a new evaluation without --resume"
"""What to do about a line that is wrong."""
Fits = Callable[[AnswerRecord], bool]
"""Whether an answer can be one of the model on the image that it names."""
SYNC_S = 2.0
"""Seconds between two syncs to disk: what a crash of the machine may lose. A crash of the program loses nothing."""


class Journal:
    """The records of an evaluation. One process at a time may have it open: it holds the lock of the folder.

    Args:
        folder: folder of the evaluation.
        images: number of images of the data set.
        fits: whether an answer can be one of this model on the image that it names.

    Attributes:
        counted: images with an answer that counts: a class, or a pixel that is not ignored.

    Raises:
        InputError: the file is damaged. An incomplete last line, as a crash leaves it, is removed instead.
    """

    def __init__(self, folder: Path, images: int, fits: Fits):
        self.folder, self.path, self.counted = folder, folder / JOURNAL, 0
        self._done, self._fits = np.zeros(images, bool), fits
        self._file = self.path.open("ab+")
        try:
            for record in self.records():
                self._note(record)
            self._drop_incomplete_line()
        except BaseException:
            self._file.close()
            raise
        self._started = self._synced = time.monotonic()

    def pending(self) -> list[int]:
        """Indices of the images without a record, ascending."""
        return [int(index) for index in np.flatnonzero(~self._done)]

    @property
    def done(self) -> int:
        """Number of images with a record."""
        return int(self._done.sum())

    @property
    def elapsed_s(self) -> float:
        """Seconds since the session started, rounded to milliseconds."""
        return round(time.monotonic() - self._started, 3)

    def start_session(self, server: str) -> None:
        """Record that answers from this server follow.

        Raises:
            InputError: the journal can't be written.
        """
        self._started = time.monotonic()
        self._write(Session(started=datetime.now(UTC), server=server))

    def add(self, record: AnswerRecord | Skipped) -> None:
        """Append the record of an image. It survives a crash of the program at once, of the machine after SYNC_S.

        Raises:
            InputError: the journal can't be written.
        """
        self._write(record)
        self._note(record)

    def records(self) -> Iterator[JournalRecord]:
        """The records so far; as `read_journal`."""
        return read_journal(self.folder, len(self._done), self._fits)

    def close(self) -> None:
        """Close the file and release the lock."""
        self._file.close()

    def _note(self, record: JournalRecord) -> None:
        if not isinstance(record, Session):
            self._done[record.index] = True
            self.counted += isinstance(record, ClassificationAnswer) or (
                isinstance(record, SegmentationAnswer) and bool(record.cells)
            )

    def _write(self, record: Record) -> None:
        try:
            self._file.write(record.model_dump_json().encode() + b"\n")
            self._file.flush()
            if (now := time.monotonic()) - self._synced > SYNC_S:
                os.fsync(self._file.fileno())
                self._synced = now
        except OSError as error:
            what = f"{self.path} can't be written: {error.strerror}"
            raise InputError(what, "free some space, then continue with --resume") from None

    def _drop_incomplete_line(self) -> None:
        """Truncate the file after its last line break."""
        size = self._file.seek(0, os.SEEK_END)
        whole = size
        while whole and self._byte(whole - 1) != b"\n":
            whole -= 1
        if whole < size:
            self._file.truncate(whole)

    def _byte(self, offset: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(1)


def read_journal(folder: Path, images: int, fits: Fits) -> Iterator[JournalRecord]:
    """The records in the order they were written, read from the file one at a time: every image and session once.

    Args:
        folder: folder of the evaluation.
        images: number of images of the data set.
        fits: whether an answer can be one of this model on the image that it names.

    Raises:
        InputError: the file can't be read; a line is damaged, or is no answer of this model on these images.
    """
    seen, sessions = np.zeros(images, bool), set[Session]()
    with (folder / JOURNAL).open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.endswith(b"\n"):  # as a crash leaves it
                return
            record = _parse(line, f"{folder / JOURNAL}", number)
            if isinstance(record, Session):
                if record not in sessions:
                    sessions.add(record)
                    yield record
                continue
            if record.index >= images or not (isinstance(record, Skipped) or fits(record)):
                what = f"{folder / JOURNAL} line {number} is no answer of this model on these images"
                raise InputError(what, REPAIR)
            if not seen[record.index]:
                seen[record.index] = True
                yield record


def _parse(line: bytes, file: str, number: int) -> JournalRecord:
    try:
        return JOURNAL_RECORD.validate_json(line)
    except ValidationError:
        raise InputError(f"{file} is damaged in line {number}", REPAIR) from None
