"""Types of settings that several groups have."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

Positive = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
ImageCount = Annotated[int, Field(ge=1, json_schema_extra={"unit": "images"})]
SomeSteps = Annotated[int, Field(ge=1, json_schema_extra={"unit": "steps"})]
Steps = Annotated[int, Field(ge=0, json_schema_extra={"unit": "steps"})]
