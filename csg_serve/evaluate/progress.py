"""Time, throughput and latency of an evaluation."""

from __future__ import annotations

from datetime import datetime

from csg_serve.evaluate.latency_histogram import LatencyHistogram
from csg_serve.evaluate.records import JournalRecord, Session, Skipped


class Progress:
    """Counts and times of an evaluation, computed from the records of its journal.

    Attributes:
        started: time of the first session, None before it.
        servers: addresses of all sessions, in order, each once.
        sessions: number of sessions.
        answered: images that were answered.
        skipped: images that could not be read.
        seconds: time in which answers arrived, summed over the sessions.
        latencies: request latency of each answered image.
    """

    def __init__(self) -> None:
        self.started: datetime | None = None
        self.servers: list[str] = []
        self.sessions = self.answered = self.skipped = 0
        self.seconds = self._elapsed_s = 0.0
        self.latencies = LatencyHistogram()

    def add(self, record: JournalRecord) -> None:
        """Count one record; those of a session come after its own record, in any order."""
        if isinstance(record, Session):
            self.started = self.started or record.started
            if record.server not in self.servers:
                self.servers.append(record.server)
            self.sessions, self._elapsed_s = self.sessions + 1, 0.0
            return
        if record.elapsed_s > self._elapsed_s:
            self.seconds, self._elapsed_s = self.seconds + record.elapsed_s - self._elapsed_s, record.elapsed_s
        if isinstance(record, Skipped):
            self.skipped += 1
        else:
            self.answered += 1
            self.latencies.add(record.latency_ms)

    @property
    def images_per_s(self) -> float:
        """Images answered per second."""
        return self.answered / self.seconds if self.seconds else 0.0
