"""An evaluation's folder: what is measured, a line for each image, and the result.

evaluation.json  the model and the images; written first
journal.jsonl    a line for each image as its answer came, and one where each sitting began
result.json      the figures, as `--json` prints them; written last: without it the evaluation is unfinished

All figures are computed from the journal, so an evaluation that was interrupted ends in the same ones.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, ValidationError

from csg.console import log
from csg.errors import InputError, UsageError
from csg.files import atomic_write, validate_name
from csg_serve.evaluate.latency_histogram import Latencies

EVALUATIONS = Path("evaluations")
SUBJECT, JOURNAL, RESULT = "evaluation.json", "journal.jsonl", "result.json"
SYNC_S = 2.0  # what a crash of the machine may cost; one of the program costs nothing

Line = dict[str, Any]


class Subject(BaseModel):
    """What is measured on what. card: SHA-256 of the model card. images: their number; fingerprint: as the set's."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    model: str
    version: int
    card: str
    sources: tuple[str, ...]
    labels: str | None
    tile: int | None
    dataset: str
    images: int
    fingerprint: str


class Course:
    """How an evaluation went, from the lines of its journal.

    seconds: in which answers came, over all sittings. latencies: of the request that each image went with.
    """

    def __init__(self) -> None:
        self.began, self.servers = "", dict[str, None]()
        self.sittings = self.answered = self.skipped = 0
        self.seconds, self._at = 0.0, 0.0
        self.latencies = Latencies()

    def add(self, line: Line) -> None:
        """Take in a line."""
        if "sitting" in line:
            self.began = self.began or line["sitting"]
            self.servers[line["server"]] = None
            self.sittings, self._at = self.sittings + 1, 0.0
            return
        self.seconds, self._at = self.seconds + line["at"] - self._at, line["at"]
        if "skipped" in line:
            self.skipped += 1
        else:
            self.answered += 1
            self.latencies.add(line["ms"])

    @property
    def images_per_s(self) -> float:
        """Images answered in a second."""
        return self.answered / self.seconds if self.seconds else 0.0


class Journal:
    """The lines of an evaluation, held by one process at a time.

    Args:
        folder: the evaluation's.
        images: how many there are.

    Raises:
        UsageError: another process works on this evaluation.
        InputError: the file is damaged, elsewhere than in a last line that was cut off.
    """

    def __init__(self, folder: Path, images: int):
        self.folder, self.path = folder, folder / JOURNAL
        self._done = np.zeros(images, bool)
        self._file = self.path.open("ab+")
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            self._drop_torn_line()
            for line in self.lines():
                if "sitting" not in line:
                    self._done[line["place"]] = True
        except BlockingIOError:
            self._file.close()
            raise UsageError(f"another process works on {folder}", "let it finish, or name another folder") from None
        except BaseException:
            self._file.close()
            raise
        self._began = self._synced = time.monotonic()

    def pending(self) -> list[int]:
        """The places of the images without a line."""
        return np.flatnonzero(~self._done).tolist()  # type: ignore[no-any-return]

    @property
    def done(self) -> int:
        """How many images have a line."""
        return int(self._done.sum())

    def begin(self, server: str) -> None:
        """A sitting begins."""
        self._began = time.monotonic()
        self._write({"sitting": datetime.now(UTC).isoformat(timespec="seconds"), "server": server})

    def add(self, place: int, **line: Any) -> None:
        """The line of an image; it survives the end of this program at once, of the machine after a moment.

        Raises:
            InputError: it can't be written.
        """
        self._write({"place": place, "at": round(time.monotonic() - self._began, 3), **line})
        self._done[place] = True

    def lines(self) -> Iterator[Line]:
        """All lines, in the order they were written."""
        with self.path.open("rb") as file:
            for number, text in enumerate(file, 1):
                try:
                    line = json.loads(text)
                    if "sitting" not in line and not 0 <= line["place"] < len(self._done):
                        raise ValueError
                except (ValueError, KeyError, TypeError):
                    what = f"{self.path} is damaged in line {number}"
                    raise InputError(what, "start the evaluation anew, without --resume") from None
                yield line

    def close(self) -> None:
        """Let go of the file."""
        self._file.close()

    def _write(self, line: Line) -> None:
        try:
            self._file.write(json.dumps(line, allow_nan=False).encode() + b"\n")
            self._file.flush()
            if (now := time.monotonic()) - self._synced > SYNC_S:
                os.fsync(self._file.fileno())
                self._synced = now
        except OSError as error:
            raise InputError(f"{self.path} can't be written: {error.strerror}", "make room, then --resume") from None

    def _drop_torn_line(self) -> None:
        """Cut off what follows the last line break: a line that a crash left half written."""
        size = self._file.seek(0, os.SEEK_END)
        while size and self._byte(size - 1) != b"\n":
            size -= 1
        self._file.truncate(size)

    def _byte(self, place: int) -> bytes:
        self._file.seek(place)
        return self._file.read(1)


@contextmanager
def keeping(folder: Path, images: int) -> Iterator[Journal]:
    """The journal of a folder; where the block fails, how to go on is said, or a folder without a line removed."""
    journal = Journal(folder, images)
    try:
        yield journal
    except BaseException:
        if journal.done:
            log(
                f"{journal.done} of {images} images are kept; go on with `csg evaluate --resume --out {folder}`, "
                "and the address of the server"
            )
        elif not any(name.name not in (SUBJECT, JOURNAL) for name in folder.iterdir()):
            for name in (SUBJECT, JOURNAL):
                (folder / name).unlink()
            folder.rmdir()
        raise
    finally:
        journal.close()


def new_evaluation(subject: Subject, out: Path | None) -> Path:
    """A folder for an evaluation: `out`, or the next free one in evaluations/.

    Raises:
        UsageError: `out` holds an evaluation already, or the model's name can be no folder's.
        InputError: the folder can't be made.
    """
    try:
        folder = out or _next_free(f"{validate_name(subject.model, 'model name')}-{subject.version}")
        folder.mkdir(parents=True, exist_ok=True)
        if (folder / SUBJECT).exists():
            raise UsageError(f"{folder} holds an evaluation already", "go on with it by --resume, or name another")
        atomic_write(folder / SUBJECT, subject.model_dump_json(indent=2).encode() + b"\n")
    except OSError as error:
        raise InputError(f"{error.filename} can't be written: {error.strerror}", "name a folder with --out") from None
    return folder


def _next_free(stem: str) -> Path:
    number = 1
    while True:
        try:
            (EVALUATIONS / f"{stem}-{number}").mkdir(parents=True)
            return EVALUATIONS / f"{stem}-{number}"
        except FileExistsError:
            number += 1


def evaluation_to_resume(out: Path | None, **given: Any) -> tuple[Path, Subject]:
    """The evaluation at `out`, or the newest unfinished one, and what it measures.

    Args:
        given: what the user says of it again, fields of a Subject; None is not said.

    Raises:
        InputError: there is none, or it is damaged.
        UsageError: the one at `out` is of something else.
    """
    wanted = {name: value for name, value in given.items() if value is not None}
    if out:
        subject = read_subject(out)
        for name, value in wanted.items():
            if (recorded := getattr(subject, name)) != value:
                option = "data" if name == "sources" else name
                words = ", ".join(recorded) if isinstance(recorded, tuple) else recorded
                raise UsageError(f"{out} is of other {option}: {words}", f"leave --{option} out, or --resume")
        return out, subject
    found = sorted(EVALUATIONS.glob(f"[!.]*/{SUBJECT}"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
    for folder in (file.parent for file in found if not (file.parent / RESULT).exists()):
        subject = read_subject(folder)
        if all(getattr(subject, name) == value for name, value in wanted.items()):
            return folder, subject
    of_that = " of that" if wanted else ""
    raise InputError(f"no unfinished evaluation{of_that} is in {EVALUATIONS}/", "leave --resume out, or name its --out")


def read_subject(folder: Path) -> Subject:
    """What the evaluation in a folder measures."""
    try:
        return Subject.model_validate_json((folder / SUBJECT).read_bytes())
    except (OSError, ValidationError):
        what = f"{folder} is no evaluation: {SUBJECT} is missing or broken"
        raise InputError(what, "name one's folder, or leave --resume out") from None


def check_same(folder: Path, before: Subject, now: Subject) -> None:
    """Raise InputError where the model or the images are not those that an evaluation was begun with."""
    if (before.version, before.card) != (now.version, now.card):
        server = "another one" if before.version == now.version else f"version {now.version}"
        what = f"{folder} is of version {before.version} of {before.model}, the server has {server}"
        raise InputError(what, "serve that one again (csg deploy --rollback), or start anew without --resume")
    if before != now:
        what = f"the images of {before.dataset} are not those that {folder} was begun with"
        raise InputError(what, "start anew without --resume")
