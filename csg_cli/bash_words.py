"""What bash needs to complete values with colons, equals signs and spaces.

bash breaks a word at `:` and `=`, and replaces only what follows the last break. It inserts a value as it is, so spaces
in it must come with a backslash.
"""

from __future__ import annotations

import io
import os
import re
import sys
from collections.abc import Callable
from contextlib import redirect_stdout

WORDS, NUMBER = "COMP_WORDS", "COMP_CWORD"
BREAK = re.compile(r"[:=]+")
SPECIAL = re.compile(r"([^\w@%+=:,./-])")


def complete_in_bash(complete: Callable[[], None]) -> None:
    """Let typer answer bash.

    Args:
        complete: runs the command line, which ends in SystemExit.
    """
    word, whole = _join_words()
    answer = io.StringIO()
    try:
        with redirect_stdout(answer):
            complete()
    finally:
        sys.stdout.write("\n".join(_inserted(value, word, whole) for value in answer.getvalue().splitlines()))


def _join_words() -> tuple[str, str]:
    """Join the words that bash broke, in the variables by which it asks; returns the last one, as it was and joined."""
    number = int(os.environ.get(NUMBER, "0"))
    words = os.environ.get(WORDS, "").split("\n")[: number + 1]
    words += [""] * (number + 1 - len(words))
    joined: list[str] = []
    for index, word in enumerate(words):
        if index and word and (BREAK.fullmatch(word) or BREAK.fullmatch(words[index - 1])):
            joined[-1] += word
        else:
            joined.append(word)
    os.environ.update({WORDS: "\n".join(joined), NUMBER: str(len(joined) - 1)})
    return words[-1], joined[-1]


def _inserted(value: str, word: str, whole: str) -> str:
    """What takes the place of the word: the value without what is before the word's last break."""
    typed, before = _unquoted(whole), whole.removesuffix("" if BREAK.fullmatch(word) else word)
    rest = value[len(_unquoted(before)) :] if value.startswith(typed) else value
    return rest if word.startswith(('"', "'")) else SPECIAL.sub(r"\\\1", rest)


def _unquoted(word: str) -> str:
    return re.sub(r"[\"'\\]", "", word)
