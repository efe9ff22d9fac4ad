"""The base of the models that make up bench.json."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, FiniteFloat, model_validator

Seconds = Annotated[FiniteFloat, Field(ge=0)]


class BenchModel(BaseModel):
    """An immutable part of bench.json that knows the keys of older files.

    Attributes:
        old_keys: Keys of schema version 1 and the fields that replace them.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    old_keys: ClassVar[Mapping[str, str]] = {}

    @model_validator(mode="before")
    @classmethod
    def _accept_old_keys(cls, data: Any) -> Any:
        return {cls.old_keys.get(key, key): value for key, value in data.items()} if isinstance(data, dict) else data
