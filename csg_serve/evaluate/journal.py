"""The journal of an evaluation: one JSON line per image, written as soon as its answer arrives.

All figures are computed from the journal, so an interrupted evaluation ends with the same figures as an
undisturbed one.
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
from pydantic import ValidationError

from csg.errors import InputError, UsageError
from csg.records import Record
from csg_serve.evaluate.records import JOURNAL_RECORD, AnswerRecord, ImageRecord, JournalRecord, Session, Skipped

JOURNAL = "journal.jsonl"
SYNC_S = 2.0
"""Seconds between two syncs to disk: what a crash of the machine may lose. A crash of the program loses nothing."""


class Journal:
    """The records of an evaluation, locked against other processes.

    Args:
        folder: folder of the evaluation.
        images: number of images of the data set.

    Raises:
        UsageError: another process has the journal open.
        InputError: the file is damaged. An incomplete last line, as a crash leaves it, is removed instead.
    """

    def __init__(self, folder: Path, images: int):
        self.folder, self.path = folder, folder / JOURNAL
        self._done = np.zeros(images, bool)
        self._file = self.path.open("ab+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._drop_incomplete_line()
            for record in self.records():
                if isinstance(record, ImageRecord):
                    self._done[record.index] = True
        except BlockingIOError:
            self._file.close()
            raise UsageError(
                f"another process is working on {folder}", "wait for it to finish, or choose another folder"
            ) from None
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
        self._write(Session(started=datetime.now(UTC).replace(microsecond=0), server=server))

    def add(self, record: AnswerRecord | Skipped) -> None:
        """Append the record of an image. It survives a crash of the program at once, of the machine after SYNC_S.

        Raises:
            InputError: the journal can't be written.
        """
        self._write(record)
        self._done[record.index] = True

    def records(self) -> Iterator[JournalRecord]:
        """All records, in the order they were written, read from the file one at a time.

        Raises:
            InputError: a line is damaged.
        """
        with self.path.open("rb") as file:
            for number, line in enumerate(file, 1):
                try:
                    record = JOURNAL_RECORD.validate_json(line)
                except ValidationError:
                    raise self._damaged(number) from None
                if isinstance(record, ImageRecord) and record.index >= len(self._done):
                    raise self._damaged(number)
                yield record

    def close(self) -> None:
        """Close the file and release the lock."""
        self._file.close()

    def _damaged(self, number: int) -> InputError:
        return InputError(f"{self.path} is damaged in line {number}", "start a new evaluation, without --resume")

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
        while size and self._byte(size - 1) != b"\n":
            size -= 1
        self._file.truncate(size)

    def _byte(self, offset: int) -> bytes:
        self._file.seek(offset)
        return self._file.read(1)
