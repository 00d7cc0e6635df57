"""The base of the records that csg reads from files and servers."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field

Shape = Annotated[tuple[Annotated[int, Field(ge=-1, le=2**31 - 1)], ...], Field(min_length=1)]
"""Shape of an array; -1 for a side that is not fixed."""


class Record(BaseModel):
    """An immutable record: unknown fields, NaN and infinity are refused (JSON has neither of the last two).

    The string below a field is its description, in an IDE, in the API reference and in the JSON schema.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)
