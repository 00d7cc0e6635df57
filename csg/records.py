"""The base of every record that csg reads from a file or a server."""

from __future__ import annotations

from pydantic import BaseModel, ConfigDict


class Record(BaseModel):
    """An immutable record: unknown fields, NaN and infinity are refused (JSON has neither of the last two).

    The string below a field is its description, in an IDE, in the API reference and in the JSON schema.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False, use_attribute_docstrings=True)
