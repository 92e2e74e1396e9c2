"""YAML that remembers where each value came from, and that cannot be made to explode.

The accepted language is YAML's JSON-like core: mappings with word keys, lists, strings, integers, reals,
true/false and null, resolved as YAML 1.2 does (`no` is a word, `1e3` a number). Anchors work within limits;
tags, merge keys and duplicate keys are errors.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import yaml

from dse.core.errors import ConfigError

#: A configuration is written by hand; larger, deeper or longer input is an accident or an attack.
MAX_BYTES = 512 * 1024
MAX_DEPTH = 32
MAX_VALUES = 50_000

_TAG = "tag:yaml.org,2002:"
#: Integers longer than this many digits are refused before Python converts them (quadratic time).
_MAX_DIGITS = 30


@dataclass(frozen=True)
class Mark:
    """Where a value was written. `line` counts from 1; 0 for the command line."""

    file: str
    line: int


KeyPath = tuple[str | int, ...]
#: Position of every value by its path, such as ("search", "space", "hardware.rows", 0).
Marks = Mapping[KeyPath, Mark]


class _CoreLoader(yaml.SafeLoader):
    """Safe loader with the implicit types of YAML 1.2's core schema."""

    yaml_implicit_resolvers: dict[Any, Any] = {}  # noqa: RUF012 (PyYAML reads the class attribute)


for _kind, _pattern, _first in (
    ("bool", r"^(?:true|True|TRUE|false|False|FALSE)$", "tTfF"),
    ("null", r"^(?:~|null|Null|NULL|)$", "~nN"),
    ("int", r"^[-+]?(?:[0-9]+|0x[0-9a-fA-F]+)$", "-+0123456789"),
    ("float", r"^[-+]?(?:\.[0-9]+|[0-9]+(?:\.[0-9]*)?)(?:[eE][-+]?[0-9]+)?$", "-+.0123456789"),
):
    _CoreLoader.add_implicit_resolver(_TAG + _kind, re.compile(_pattern), [*_first, ""])


def parse(text: str, file: str) -> tuple[Any, dict[KeyPath, Mark]]:
    """Parse one YAML document into plain data and the mark of every value.

    Parameters
    ----------
    text
        The document; at most `MAX_BYTES` characters.
    file
        Its name in messages.

    Raises
    ------
    ConfigError: not YAML, a duplicate key, a tag, or a limit of this module is exceeded.
    """
    if len(text) > MAX_BYTES:
        raise ConfigError(f"is {len(text)} characters long; a configuration may have {MAX_BYTES}", file=file)
    try:
        _check_events(text, file)
        node = yaml.compose(text, Loader=_CoreLoader)
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else None
        raise ConfigError(f"is not YAML: {error.problem or error.context}", file=file, line=line) from error
    except yaml.YAMLError as error:
        raise ConfigError(f"is not YAML: {' '.join(str(error).split())}", file=file) from error
    builder = _Builder(file)
    data = builder.build(node, ()) if node is not None else None
    return data, builder.marks


def _check_events(text: str, file: str) -> None:
    """Refuse tags and deep nesting on the event stream, before the composer recurses into it."""
    depth = 0
    for event in yaml.parse(text, Loader=_CoreLoader):
        tag = getattr(event, "tag", None)
        if tag is not None:
            raise ConfigError(f"tag {tag!r} is not supported", file=file, line=_line(event))
        if isinstance(event, (yaml.MappingStartEvent, yaml.SequenceStartEvent)):
            depth += 1
            if depth > MAX_DEPTH:
                raise ConfigError(f"is nested deeper than {MAX_DEPTH}", file=file, line=_line(event))
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            depth -= 1


class _Builder:
    """Turns composed nodes into data; counts values as expanded, so that aliases cannot multiply them."""

    def __init__(self, file: str) -> None:
        self.file = file
        self.marks: dict[KeyPath, Mark] = {}

    def build(self, node: yaml.Node, path: KeyPath) -> Any:
        line = _line(node)
        # a key's own line is set by the mapping around it and reads better than its value's
        self.marks.setdefault(path, Mark(self.file, line))
        if len(self.marks) > MAX_VALUES:
            raise ConfigError(f"holds more than {MAX_VALUES} values once anchors are expanded", file=self.file)
        if len(path) > MAX_DEPTH:
            raise ConfigError(f"is nested deeper than {MAX_DEPTH}", file=self.file, line=line)
        if isinstance(node, yaml.MappingNode):
            return self._mapping(node, path)
        if isinstance(node, yaml.SequenceNode):
            return [self.build(item, (*path, index)) for index, item in enumerate(node.value)]
        assert isinstance(node, yaml.ScalarNode)
        return self._scalar(node)

    def _mapping(self, node: yaml.MappingNode, path: KeyPath) -> dict[str, Any]:
        result: dict[str, Any] = {}
        for key_node, value_node in node.value:
            line = _line(key_node)
            key = self._scalar(key_node) if isinstance(key_node, yaml.ScalarNode) else None
            if not isinstance(key, str):
                shown = getattr(key_node, "value", "") if isinstance(key_node, yaml.ScalarNode) else "a collection"
                raise ConfigError(f"a key must be a word, not {shown}", file=self.file, line=line)
            if key in result:
                first = self.marks[(*path, key)].line
                raise ConfigError(f"is given twice (first on line {first})", file=self.file, line=line, key=key)
            self.marks[(*path, key)] = Mark(self.file, line)
            result[key] = self.build(value_node, (*path, key))
        return result

    def _scalar(self, node: yaml.ScalarNode) -> Any:
        kind, text = node.tag.removeprefix(_TAG), str(node.value)
        if kind == "str":
            return text
        if kind == "bool":
            return text.lower() == "true"
        if kind == "null":
            return None
        if kind == "int" and len(text) <= _MAX_DIGITS:
            return int(text, 16 if "0x" in text else 10)
        value = float(text) if len(text) <= 10 * _MAX_DIGITS else float("inf")
        if value in (float("inf"), float("-inf")) or kind == "int":
            raise ConfigError("number is too large", file=self.file, line=_line(node))
        return value


def _line(part: yaml.Node | yaml.Event) -> int:
    """Line of a node or an event, from 1."""
    return part.start_mark.line + 1 if part.start_mark is not None else 0
