"""Errors that a user can cause. Each one says in one line what happened and what to do, and has an exit code.

0: success; 1: a bug in csg; 2: wrong usage; 3: invalid input or data, or an error of the machine
(`csg.machine_errors`); 4: the server can't be reached or the model is not ready; 5: a verification failed (parity,
checksum, a required comparison); 130: Ctrl-C; 141: nobody reads the output any more.
"""

from __future__ import annotations

import unicodedata


class CsgError(Exception):
    """An error with a one-line message and a hint.

    Args:
        message: what happened, and the file, line, class or image where it happened.
        hint: what the user can do about it.

    Example:
        >>> str(InputError("data photos does not exist", "check the path"))
        'data photos does not exist; check the path'
    """

    exit_code = 1

    def __init__(self, message: str, hint: str):
        message, hint = (printable(text) for text in (message, hint))
        super().__init__(message, hint)
        self.message, self.hint = message, hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}"


class UsageError(CsgError):
    """An option, an argument or a recipe setting is invalid."""

    exit_code = 2


class InputError(CsgError):
    """A file, folder, image or dataset can't be used."""

    exit_code = 3


class ServerError(CsgError):
    """A server can't be reached or started, or the model is not ready."""

    exit_code = 4


class VerificationError(CsgError):
    """A verification failed: parity with PyTorch, a checksum, or a comparison that was required."""

    exit_code = 5


def printable(text: str) -> str:
    """A text on one line in which control characters and bytes that are not UTF-8 are shown, not sent to a terminal.

    Names of files, classes and models come from outside: they may hold line breaks, escape codes, marks that reverse
    the direction of writing, or bytes that are not UTF-8 (which Python keeps as lone surrogates).

    Example:
        >>> printable("red \\x1b[31m.jpg\\ncaf\\udce9")
        'red \\\\x1b[31m.jpg\\\\ncaf\\\\xe9'
    """
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() or unicodedata.category(c) == "Zs" else _escaped(c) for c in text)


def _escaped(character: str) -> str:
    byte = ord(character) - 0xDC00
    if 0x80 <= byte <= 0xFF:  # a byte that is not UTF-8
        return f"\\x{byte:02x}"
    return character.encode("unicode_escape").decode()


def one_line(text: object, limit: int = 300) -> str:
    """A message of another library on one line, to quote it in an error of ours.

    Args:
        text: the message, or the exception that carries it; an exception without a message gives its type's name.
        limit: maximum length in characters; a longer text is cut and ends in "...".

    Example:
        >>> one_line("while parsing\\n  line 1,   column 2")
        'while parsing line 1, column 2'
        >>> one_line(TimeoutError())
        'TimeoutError'
    """
    line = " ".join(str(text).split())
    if not line and isinstance(text, BaseException):
        return type(text).__name__
    return line if len(line) <= limit else line[: limit - 3].rstrip() + "..."
