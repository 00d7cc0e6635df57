"""The base of the records that csg reads from files and servers."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from csg.errors import InputError, one_line

Shape = Annotated[tuple[Annotated[int, Field(ge=-1, le=2**31 - 1)], ...], Field(min_length=1)]
"""Shape of an array; -1 for a side that is not fixed."""


class Record(BaseModel):
    """An immutable record: unknown fields, NaN and infinity are refused (JSON has neither of the last two).

    The string below a field is its description, in an IDE, in the API reference and in the JSON schema.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)


RecordT = TypeVar("RecordT", bound=Record)


def read_record(path: Path, kind: type[RecordT], hint: str) -> RecordT:
    """Read a JSON file as a record with a field `version`.

    Args:
        path: the file.
        kind: the class of the record; the default of its `version` is the version that csg reads.
        hint: what the user can do if the file is missing or damaged.

    Raises:
        InputError: the file is missing, not JSON, not such a record, or of a newer version.
    """
    from csg.parsing import parse_json  # here, since Triton makes records where there may be no yaml

    try:
        tree = parse_json(path.read_bytes())
    except FileNotFoundError:
        raise InputError(f"{path} is missing", hint) from None
    except OSError as error:
        raise InputError(f"{path} can't be read: {error.strerror}", hint) from None
    except ValueError:
        raise InputError(f"{path} is damaged", hint) from None
    version = tree.get("version") if isinstance(tree, dict) else None
    known = kind.model_fields["version"].default
    if isinstance(version, int) and version > known:
        raise InputError(f"{path} has format version {version}, this csg reads {known}", "update csg")
    try:
        return kind.model_validate(tree)
    except ValidationError as error:
        first = error.errors()[0]
        name = one_line(".".join(map(str, first["loc"])), 100)
        raise InputError(f"{path} is damaged: {name}: {first['msg']}", hint) from None
