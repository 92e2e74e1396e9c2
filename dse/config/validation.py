"""Pydantic's findings as one sentence at a line of the file: what, its value, the limit, the right choice."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic_core import ErrorDetails

from dse.config.marked_yaml import KeyPath, Mark, Marks
from dse.config.models import EntryError, RangeConfig
from dse.core.errors import ConfigError, nearest

Model = TypeVar("Model", bound=BaseModel)

#: Pydantic's error types in our words; `{...}` are the limits pydantic reports.
_PHRASES = {
    "greater_than_equal": "must be at least {ge}",
    "greater_than": "must be more than {gt}",
    "less_than_equal": "must be at most {le}",
    "less_than": "must be less than {lt}",
    "int_type": "must be an integer",
    "int_from_float": "must be an integer",
    "float_type": "must be a number",
    "bool_type": "must be true or false",
    "string_type": "must be a word",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "dict_type": "must hold key: value lines",
    "model_type": "must hold key: value lines",
    "string_too_short": "must not be empty",
    "string_too_long": "must have at most {max_length} characters",
    "string_pattern_mismatch": "must match {pattern}",
    "too_short": "must have at least {min_length} entries",
    "too_long": "must have at most {max_length} entries",
}


def validate(model: type[Model], data: Any, marks: Marks, prefix: KeyPath = ()) -> Model:
    """`data` as a `model`, types taken strictly: `'8'` is no integer, `true` is not 1.

    Parameters
    ----------
    marks
        Where each value was written, by its path from the top of the configuration.
    prefix
        Path of `data` itself.

    Raises
    ------
    ConfigError: the first finding (unknown keys before all others), with file, line, key and value.
    """
    try:
        # JSON is the strict mode that knows lists may become tuples and integers reals
        return model.model_validate_json(json.dumps(data), strict=True)
    except ValidationError as error:
        findings = sorted(error.errors(), key=lambda item: item["type"] != "extra_forbidden")
        location = (*prefix, *_written(data, findings[0]))
        raise at(location, marks, _sentence(model, findings[0])) from error


def validate_hardware(model: type[Model], data: Mapping[str, Any], marks: Marks, prefix: KeyPath) -> Model:
    """Hardware parameters as the family's `hardware_model`, with the message quality of our own keys.

    Raises
    ------
    ConfigError: see `validate`.
    """
    return validate(model, dict(data), marks, prefix)


def validate_choices(model: type[BaseModel], knob: str, choices: Sequence[Any], marks: Marks, prefix: KeyPath) -> None:
    """Check every choice of a searched hardware parameter against its field in `model`.

    Parameters
    ----------
    knob
        "hardware.NAME".
    prefix
        Path of the knob's choices, such as ("search", "space", "hardware.rows").

    Raises
    ------
    ConfigError: the family has no such parameter, or a choice is not valid for it.
    """
    name = knob.removeprefix("hardware.")
    if name not in model.model_fields:
        raise at(prefix, marks, f"is not a parameter of {model.__name__}{nearest(name, model.model_fields)}")
    for index, choice in enumerate(choices):
        try:
            model.__pydantic_validator__.validate_assignment(model.model_construct(), name, choice, strict=True)
        except ValidationError as error:
            finding = next((item for item in error.errors() if item["loc"][:1] == (name,)), None)
            if finding is None or finding["type"] == "frozen_instance":
                continue
            where = (*prefix, index) if (*prefix, index) in marks else prefix
            raise at(where, marks, _sentence(model, finding)) from error


def at(path: KeyPath, marks: Marks, message: str) -> ConfigError:
    """A ConfigError at the nearest written ancestor of `path`."""
    mark = _nearest_mark(path, marks)
    key = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")
    return ConfigError(
        message, file=mark.file if mark else None, line=(mark.line or None) if mark else None, key=key or None
    )


def _nearest_mark(path: KeyPath, marks: Marks) -> Mark | None:
    for length in range(len(path), -1, -1):
        if path[:length] in marks:
            return marks[path[:length]]
    return None


def _written(data: Any, finding: ErrorDetails) -> KeyPath:
    """The part of a finding's location that stands in `data`: without the names of a union's branches."""
    path: KeyPath = ()
    value = data
    for part in finding["loc"]:
        if isinstance(value, dict) and part in value:
            value = value[str(part)]
        elif isinstance(value, list) and isinstance(part, int) and part < len(value):
            value = value[part]
        elif finding["type"] != "missing":
            continue
        path = (*path, part)
    error = finding.get("ctx", {}).get("error")
    return (*path, error.entry) if isinstance(error, EntryError) else path


def _sentence(model: type[BaseModel], finding: ErrorDetails) -> str:
    kind, value, context = finding["type"], finding["input"], finding.get("ctx", {})
    location = finding["loc"]
    if kind == "extra_forbidden":
        return f"is not a known key{nearest(str(location[-1]), _fields_at(model, location[:-1]))}"
    if kind == "missing":
        return "is missing"
    if kind == "value_error":
        return str(context["error"])
    if kind == "literal_error":
        expected = str(context["expected"])
        words = re.findall(r"'([^']*)'", expected)
        if words:
            return f"{_shown(value)} is not one of its values{nearest(str(value), words)}"
        return f"must be {expected}, not {_shown(value)}"
    if kind in _PHRASES:
        return f"{_PHRASES[kind].format(**context)}, not {_shown(value)}"
    return f"{finding['msg']} (given {_shown(value)})"


def _shown(value: Any) -> str:
    """A value as it would be written, cut to a readable length."""
    text = json.dumps(value, ensure_ascii=False) if isinstance(value, (bool, dict, list, type(None))) else repr(value)
    return text if len(text) <= 60 else text[:57] + "..."


def _fields_at(model: type[BaseModel], location: Sequence[str | int]) -> list[str]:
    """Keys that are valid at `location` inside `model`."""
    annotation: Any = model
    for part in location:
        inner = model_in(annotation)
        if inner is not None and part in inner.model_fields:
            annotation = inner.model_fields[str(part)].annotation
        elif get_origin(annotation) is dict:
            annotation = get_args(annotation)[1]
        elif part == "range":  # the branch of `Choices`
            annotation = RangeConfig
    inner = model_in(annotation)
    return list(inner.model_fields) if inner is not None else []


def model_in(annotation: Any) -> type[BaseModel] | None:
    """The model in an annotation such as `SearchConfig | None`."""
    if isinstance(annotation, type) and issubclass(annotation, BaseModel):
        return annotation
    if get_origin(annotation) is dict:
        return None
    return next((found for part in get_args(annotation) if (found := model_in(part)) is not None), None)
