"""Errors that a user can cause. Each says in one line what happened and what to do, and has its own exit code.

0 done; 1 a defect of ours; 2 wrong usage; 3 wrong input or data; 4 server not reachable or model not ready;
5 a promise was not kept (parity, checksum); 130 Ctrl-C.
"""

from __future__ import annotations


class CsgError(Exception):
    """What happened (with the file, line, class or image it happened at) and what to do about it."""

    exit_code = 1

    def __init__(self, what: str, hint: str):
        what, hint = (" ".join(text.splitlines()) for text in (what, hint))  # a file's own words may have line breaks
        super().__init__(what, hint)
        self.message, self.hint = what, hint

    def __str__(self) -> str:
        return f"{self.message}; {self.hint}"


class UsageError(CsgError):
    """An argument or a recipe setting that can't be."""

    exit_code = 2


class InputError(CsgError):
    """A file, folder, image or data set that can't be used."""

    exit_code = 3


class ServerError(CsgError):
    """A server that can't be reached, can't be started, or has no such model ready."""

    exit_code = 4


class VerificationError(CsgError):
    """A promise that was not kept: parity, checksum."""

    exit_code = 5
