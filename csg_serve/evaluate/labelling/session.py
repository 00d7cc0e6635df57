"""One person's session: which items are asked next, and what is done."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from csg.errors import printable
from csg_serve.evaluate.labelling.answers import LabelFile, Labels, MergedLabels, label_files, merge, read_labels
from csg_serve.evaluate.labelling.task import LabellingTask

AHEAD = 4
"""Number of items that a page knows of: the one that it shows, and those that it loads meanwhile."""
Enough = Callable[[MergedLabels], str | None]
"""Says in a sentence why no more labels are needed; None: they are."""


class LabellingSession:
    """The items that are open for a person, in their order.

    An item is open if the person has not answered it, and the answers of the others do not settle it: nobody gave a
    class, or no class has a majority. What the person puts off comes last; what he took back comes first.

    Args:
        file: the person's open file.
        task: the questions.
        enough: looks at all answers together after each one.

    Attributes:
        unreadable: why images can't be read, by the number of the item. They are not asked in this session.
    """

    def __init__(self, file: LabelFile, task: LabellingTask, enough: Enough | None = None):
        self.file, self.task = file, task
        self.unreadable: dict[int, str] = {}
        self._enough = enough
        self._sentence: str | None = None
        self._later: list[int] = []
        self._back: list[int] = []
        self._others: dict[Path, tuple[tuple[int, int], Labels]] = {}
        self._look()

    def answer(self, item: int, label: str | None) -> None:
        """Keep an answer; None: can't tell.

        Raises:
            InputError: it can't be written.
        """
        self.file.answer(item, label)
        self._forget(item)
        self._look()

    def undo(self) -> int | None:
        """Take back the person's last answer: its item is asked next. Returns its number; None without an answer.

        Raises:
            InputError: it can't be written.
        """
        item = self.file.undo()
        if item is not None:
            self._forget(item)
            self._back.insert(0, item)
            self._look()
        return item

    def put_off(self, item: int) -> None:
        """Ask an item after all others."""
        self._forget(item)
        self._later.append(item)

    def open_items(self) -> list[int]:
        """The numbers of the items to ask, in this order."""
        passed = {*self.file.labels, *self.merged.labels, *self.unreadable, *self._back, *self._later}
        asked = [*self._back, *(item for item in range(len(self.task.items)) if item not in passed), *self._later]
        return [item for item in asked if item not in self.unreadable]

    def state(self) -> dict[str, object]:
        """What the page shows of the progress."""
        left = self.open_items()
        total = len(self.task.items)
        return {
            "next": left[:AHEAD],
            "left": len(left),
            "total": total,
            "done": total - len(left) - len(self.unreadable),
            "own": len(self.file.labels),
            "unreadable": [{"item": item, "problem": why} for item, why in self.unreadable.items()],
            "disagreements": len(self.merged.disagreements),
            "enough": self._sentence,
        }

    @property
    def is_complete(self) -> bool:
        """Whether nothing is left to ask."""
        return self._sentence is not None or not self.open_items()

    def name(self, item: int) -> str:
        """The name of the image of an item."""
        return printable(str(self.task.items[item].image.name))

    def _forget(self, item: int) -> None:
        for waiting in (self._back, self._later):
            if item in waiting:
                waiting.remove(item)

    def _look(self) -> None:
        """Merge the answers of all, and see whether they are enough."""
        self.merged = merge({**self._of_others(), self.file.person: self.file.labels})
        self._sentence = self._enough(self.merged) if self._enough else None

    def _of_others(self) -> Mapping[str, Labels]:
        """The answers of the other people; a file is read again when it has changed."""
        found = {name: path for name, path in label_files(self.file.path.parent).items() if path != self.file.path}
        for path in found.values():
            status = path.stat()
            seen = (status.st_mtime_ns, status.st_size)
            if path not in self._others or self._others[path][0] != seen:
                self._others[path] = seen, read_labels(path, self.task.labelled)
        return {name: self._others[path][1] for name, path in found.items()}
