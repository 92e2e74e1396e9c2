"""Prices that a user replaces in YAML, as a field that architectures and families share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from dse.config.models import EntryError
from dse.core.errors import UsageError
from dse.tech import check_override


def _pairs(value: Any) -> Any:
    """`{name: figure}` as sorted pairs, which unlike a mapping can be hashed; checked against the tables."""
    if not isinstance(value, Mapping):
        return value
    for name, figure in value.items():
        if isinstance(figure, bool) or not isinstance(figure, (int, float)):
            raise EntryError(name, f"must be a positive number, not {figure!r}")
        try:
            check_override(name, figure)
        except UsageError as error:
            raise EntryError(name, str(error)) from error
    return tuple(sorted((name, float(figure)) for name, figure in value.items()))


#: Prices by the name that `dse show tech` prints, in its unit; they hold at the node and nominal supply of the design.
Prices = Annotated[
    tuple[tuple[str, float], ...],
    BeforeValidator(_pairs),
    PlainSerializer(dict),
    WithJsonSchema({"type": "object", "additionalProperties": {"type": "number", "exclusiveMinimum": 0}}),
]
