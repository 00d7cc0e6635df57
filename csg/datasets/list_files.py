"""List files: a line for each image, with its path first, as VisDA-17, Office-Home and many other sets have them.

The fields of a line are separated by spaces, tabs, commas or semicolons, and may be quoted. Empty lines, comments
(`# ...`) and a header line are passed over. The text is UTF-8, or UTF-16 with its mark; names of files that are not
UTF-8 are kept as they are.
"""

from __future__ import annotations

import codecs
import re
import unicodedata
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from csg.errors import InputError
from csg.files import absolute
from csg.images import SUFFIXES

PATH_WORDS = frozenset({"path", "file", "filename", "filepath", "image", "images", "img", "name"})
"""Words of a header over the column of the images."""
LABEL_WORDS = frozenset({"label", "labels", "class", "category", "target", "mask", "masks", "annotation"})
"""Words of a header over the column of the classes, or of the masks."""
HEADER_WORDS = PATH_WORDS | LABEL_WORDS | {"id", "index", "split", "width", "height", ""}
"""Words of a header."""
MARKS = {codecs.BOM_UTF32_LE: "utf-32", codecs.BOM_UTF32_BE: "utf-32"} | {
    codecs.BOM_UTF16_LE: "utf-16",  # UTF-32's mark begins in the same way
    codecs.BOM_UTF16_BE: "utf-16",
}
"""How a file begins that is not UTF-8."""
SAMPLE = 100
"""Lines that are looked at to find out what separates the fields."""
SHOWN = 200
"""Characters of a path that an error shows."""

_ENDINGS = tuple(sorted(SUFFIXES))
_AFTER_IMAGE = re.compile(f'(?:{"|".join(map(re.escape, _ENDINGS))})"?(?: *([\\t,;])| )', re.IGNORECASE)
_SPACE_AFTER_IMAGE = re.compile(
    f"(?:{'|'.join(f'(?<={re.escape(ending)})' for ending in _ENDINGS)})[ \\t]+", re.IGNORECASE
)


class ListLine(NamedTuple):
    """A line of a list file."""

    number: int
    """Its number in the file, from 1."""
    fields: tuple[str, ...]
    """Its fields; at least one."""


@dataclass(frozen=True)
class ListFile:
    """The content of a list file."""

    path: Path
    """The file."""
    lines: tuple[ListLine, ...]
    """Its lines; at least one."""
    header: tuple[str, ...] = ()
    """The fields of the header line, if there is one."""
    notes: tuple[str, ...] = ()
    """What a user has to know about how it was read."""

    def where(self, line: ListLine) -> str:
        """A line, for an error: the file and the line's number."""
        return f"{self.path} line {line.number}"

    def locate(self, column: int = 0) -> tuple[tuple[Path, ...], tuple[str, ...]]:
        """The files that a column names.

        Paths are absolute, or relative to the list's folder or to one above it; `\\` is read as `/` where no file's
        name holds it. Only the first and the last file are looked for.

        Args:
            column: index of the field, which every line has.

        Returns:
            The files, and notes: what a user has to know about where they were found.

        Raises:
            InputError: the first or the last file does not exist.
        """
        names = [line.fields[column] for line in self.lines]
        folder, ends = self.path.parent, (names[0], names[-1])
        bases = (folder, *absolute(folder).parents)
        base = next((base for base in bases if all(_on_disk(base, name) for name in ends)), None)
        if base is None:
            raise self._missing(bases, column)
        if any("\\" in name and "\\" not in str(_on_disk(base, name)) for name in ends):
            names = [name.replace("\\", "/") for name in names]
        names = [name if name.isascii() else _on_disk(base, name) or name for name in names]
        above = base != folder and not all(Path(name).is_absolute() for name in ends)
        notes = (f"the paths in {self.path} start at {base}",) if above else ()
        return tuple([Path(base, name) for name in names]), notes

    def _missing(self, bases: Sequence[Path], column: int) -> InputError:
        """The error that the first or the last file is in none of the folders where it may be."""
        first, last = self.lines[0], self.lines[-1]
        base = next((base for base in bases if _on_disk(base, first.fields[column])), None)
        line = last if base else first
        name = line.fields[column]
        place = f"is not in {base}" if base else f"is neither in {bases[0]} nor in a folder above it"
        return InputError(
            f"{self.where(line)} names {name[:SHOWN]}, which {'does not exist' if Path(name).is_absolute() else place}",
            "correct the path; paths are relative to the list file or to a folder above it"
            + (", and a header has to begin with #" if line is first and not is_image_name(name) else ""),
        )


def read_list(path: Path) -> ListFile:
    """Read a list file.

    Raises:
        InputError: it can't be read, is not text, or has no line.
    """
    numbered = list(_numbered(_text(path)))
    lines = [(number, line) for number, line in numbered if line[0] != "#"]
    commented = sum(line[0] == "#" and bool(_AFTER_IMAGE.search(line)) for _, line in numbered)
    delimiter = _delimiter([line for _, line in lines[:SAMPLE]])
    rows = [ListLine(number, _fields(line, delimiter)) for number, line in lines]
    header: tuple[str, ...] = ()
    if rows and _is_header(rows[0].fields):
        header = rows.pop(0).fields
    if not rows:
        raise InputError(f"{path} lists no image", "write a line for each image, its path first")
    notes = (f"{commented} of its lines that name an image begin with # and are comments",) if commented else ()
    return ListFile(path, tuple(rows), header, notes)


def is_image_name(name: str) -> bool:
    """Whether the name of a file ends like an image's."""
    return name.lower().endswith(_ENDINGS)


def header_words(field: str) -> set[str]:
    """The words of a header's field, in lower case: those of `image_path` are `image` and `path`."""
    return set(re.split(r"[\W_]+", field.lower()))


def _on_disk(base: Path, name: str) -> str | None:
    """The form of a path in which it exists: as it is, with `/` for `\\`, composed or decomposed; None if in none."""
    forms = [name] if "\\" not in name else [name, name.replace("\\", "/")]
    if not name.isascii():  # macOS decomposes the names of files
        forms = [unicodedata.normalize(form, text) for text in forms for form in ("NFC", "NFD")]
    return next((form for form in (name, *forms) if _is_file(base / form)), None)


def _is_file(path: Path) -> bool:
    try:
        return path.is_file()
    except OSError:  # a name that is too long
        return False


def _text(path: Path) -> str:
    """The text of a file; bytes that are not UTF-8 become surrogates, as in the names of files."""
    try:
        content = path.read_bytes()
    except OSError as error:
        raise InputError(f"list {path} can't be read: {error.strerror}", "check the file") from None
    encoding = next((name for mark, name in MARKS.items() if content.startswith(mark)), "utf-8-sig")
    try:
        text = content.decode(encoding, "surrogateescape" if encoding == "utf-8-sig" else "strict")
    except UnicodeDecodeError:
        raise InputError(f"list {path} begins as {encoding} and is damaged", "write it as UTF-8") from None
    if "\0" in text:
        number = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(f"{path} line {number} is not text", "name a list file of lines 'path label', in UTF-8")
    return text


def _numbered(text: str) -> Iterator[tuple[int, str]]:
    """The lines that are not empty, with their numbers."""
    lines = text.split("\n") if "\n" in text else text.split("\r")
    for number, line in enumerate(lines, 1):
        stripped = line.strip(" \t\r")
        if stripped:
            yield number, stripped


def _delimiter(lines: Sequence[str]) -> str:
    """What separates the fields: that which follows the image's name, or else what is in every line."""
    found = Counter(match.group(1) or " " for line in lines if (match := _AFTER_IMAGE.search(line)))
    if found:
        return found.most_common(1)[0][0]
    return next((character for character in "\t;," if all(character in line for line in lines)), " ")


def _fields(line: str, delimiter: str) -> tuple[str, ...]:
    """The fields of a line that is not empty."""
    if (line[0] == '"' or f'{delimiter}"' in line or ' "' in line) and (fields := _quoted_fields(line, delimiter)):
        return fields
    if delimiter != " ":
        parts = line.split(delimiter) if delimiter in line else _SPACE_AFTER_IMAGE.split(line)
        return tuple([part.strip(" \t") for part in parts])
    words = tuple(line.split())
    if len(words) == 2 and not (is_image_name(words[1]) and not is_image_name(words[0])):
        return words
    if len(parts := _SPACE_AFTER_IMAGE.split(line)) > 1:
        return tuple(parts)
    return (line,) if is_image_name(line) else tuple(line.rsplit(None, 1))


_QUOTED = {
    delimiter: re.compile(rf'[ \t]*(?:"((?:[^"]|"")*)"|([^"{delimiter}][^{delimiter}]*|))(?:[ \t]*{separator}|[ \t]*$)')
    for delimiter, separator in {" ": "[ \t]", "\t": "\t", ",": ",", ";": ";"}.items()
}


def _quoted_fields(line: str, delimiter: str) -> tuple[str, ...]:
    """The fields of a line in which some are quoted, as CSV quotes them; none if the quotes are part of a name."""
    fields, start, pattern = [], 0, _QUOTED[delimiter]
    while start < len(line):
        match = pattern.match(line, start)
        if match is None:
            return ()
        quoted, plain = match.groups()
        fields.append(plain.strip(" \t") if quoted is None else quoted.replace('""', '"'))
        start = match.end()
    return tuple(fields)


def _is_header(fields: Sequence[str]) -> bool:
    """Whether the first line names the columns, such as `image_path,label`."""
    words = [header_words(field) for field in fields]
    return all(word <= HEADER_WORDS for word in words) and any(word & PATH_WORDS for word in words)
