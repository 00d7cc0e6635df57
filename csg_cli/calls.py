"""What the functions of `csg_cli.functions` share: their errors, and the kinds of arguments they take."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable
from functools import wraps
from pathlib import Path
from typing import TYPE_CHECKING, ParamSpec, TypeAlias, TypeVar

if TYPE_CHECKING:
    from csg.bundle import Bundle
    from csg_train.training.run_folder import Run

P = ParamSpec("P")
T = TypeVar("T")
PathLike: TypeAlias = str | os.PathLike[str]
Sources: TypeAlias = PathLike | Iterable[PathLike]
"""One source of images, or several that are joined."""


def command_function(command: str) -> Callable[[Callable[P, T]], Callable[P, T]]:
    """A function that does what a command does; what the user or the machine caused becomes a CsgError."""

    def decorate(call: Callable[P, T]) -> Callable[P, T]:
        @wraps(call)
        def run(*args: P.args, **options: P.kwargs) -> T:
            try:
                return call(*args, **options)
            except Exception as error:
                from csg_cli import known_error

                known = known_error(error, [command])
                if known is None or known is error:
                    raise
                raise known from error

        return run

    return decorate


def text_of(path: PathLike | None) -> str | None:
    """A path as text."""
    return None if path is None else os.fspath(path)


def path_of(path: PathLike | None) -> Path | None:
    """A path."""
    return None if path is None else Path(path)


def folder_of(given: PathLike | Bundle | Run) -> Path:
    """The folder of a bundle or a run, or the one that is named."""
    return Path(given) if isinstance(given, str | os.PathLike) else given.path


def sources_of(sources: Sources | None) -> list[str] | None:
    """Sources as text; None for none."""
    if sources is None:
        return None
    return [os.fspath(one) for one in ([sources] if isinstance(sources, str | os.PathLike) else sources)]
