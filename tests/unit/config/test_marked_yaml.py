"""YAML: the same data as PyYAML where both agree on the language, a mark for every value, no explosions."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.config.marked_yaml import MAX_BYTES, MAX_DEPTH, Mark, parse
from dse.core.errors import ConfigError

scalars = st.none() | st.booleans() | st.integers(-(10**12), 10**12) | st.floats(allow_nan=False, allow_infinity=False)
words = st.text(st.characters(codec="utf-8", exclude_categories=("C",)), max_size=12)
documents = st.recursive(
    scalars | words,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(words, inner, max_size=4),
    max_leaves=15,
)


def paths(data: Any, path: tuple[str | int, ...] = ()) -> list[tuple[str | int, ...]]:
    """Paths of all values, the slow way."""
    found = [path]
    items = data.items() if isinstance(data, dict) else enumerate(data) if isinstance(data, list) else ()
    for key, value in items:
        found += paths(value, (*path, key))
    return found


@settings(max_examples=150, deadline=None)
@given(documents, st.sampled_from([None, 0, 2]))
def test_every_json_document_is_read_back_with_a_mark_for_each_value(data: Any, indent: int | None) -> None:
    # JSON quotes every string, so the two readers cannot differ in what a bare word means
    text = json.dumps(data, ensure_ascii=False, indent=indent)
    read, marks = parse(text, "f.yaml")
    assert read == data
    assert set(marks) == set(paths(data))
    assert all(1 <= mark.line <= text.count("\n") + 1 for mark in marks.values())


@settings(max_examples=150, deadline=None)
@given(st.text(st.sampled_from("ab:-[]{}&*!|>'\"#,? \n\t%@`0."), max_size=60))
def test_any_text_is_data_or_a_config_error(text: str) -> None:
    with contextlib.suppress(ConfigError):
        data, marks = parse(text, "f.yaml")
        assert set(marks) >= set(paths(data)) - {()}


def test_marks_name_the_line_of_the_key() -> None:
    _, marks = parse("a: 1\nb:\n  c: [1,\n   2]\n", "f.yaml")
    assert marks[("a",)] == Mark("f.yaml", 1)
    assert marks[("b", "c")] == Mark("f.yaml", 3)
    assert marks[("b", "c", 1)] == Mark("f.yaml", 4)


@pytest.mark.parametrize(
    ("text", "value"),
    [("no", "no"), ("on", "on"), ("1e3", 1000.0), ("010", 10), ("0x10", 16), ("12:30", "12:30"), ("2024-01-02",) * 2],
)
def test_scalars_follow_yaml_1_2(text: str, value: object) -> None:
    read, _ = parse(f"key: {text}", "f.yaml")
    assert read == {"key": value}
    assert type(read["key"]) is type(value)


def bomb(levels: int) -> str:
    lines = ["a0: &a0 [x, x, x, x, x, x, x, x, x, x]"]
    lines += [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, levels)]
    return "\n".join(lines)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (bomb(9), "more than 50000 values"),
        ("a: &a [*a]", "deeper"),
        ("[" * 5000, "deeper"),
        ("{a: " * 5000, "deeper"),
        ("x" * (MAX_BYTES + 1), "characters long"),
        ("a: 1\nb: 2\na: 3", r"f.yaml:3: a: is given twice \(first on line 1\)"),
        ("a: !!python/object/apply:os.system ['true']", "tag .* is not supported"),
        ("a: !!int x", "tag .* is not supported"),
        ("a: *nowhere", "f.yaml:1: is not YAML: found undefined alias"),
        ("a: [1, 2", "f.yaml:1: is not YAML"),
        ("a: 1\n\tb: 2", "f.yaml:2: is not YAML"),
        ("a: 1\n---\nb: 2", "f.yaml:2: is not YAML"),
        ("a: \x00", "f.yaml: is not YAML"),
        ("? [1, 2]\n: x", "a key must be a word, not a collection"),
        ("1: x", "a key must be a word, not 1"),
        ("a: " + "9" * 50, "number is too large"),
        ("a: 1e999", "number is too large"),
        ("<<: {a: 1}\n<<: {b: 1}", "given twice"),
    ],
)
def test_broken_or_hostile_yaml_is_one_clear_error(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        parse(text, "f.yaml")


def test_anchors_within_limits_are_expanded() -> None:
    read, _ = parse("a: &x [1, 2]\nb: *x", "f.yaml")
    assert read == {"a": [1, 2], "b": [1, 2]}


def test_depth_limit_is_exact() -> None:
    inside = "[" * MAX_DEPTH + "]" * MAX_DEPTH
    assert parse(inside, "f.yaml")[0] is not None
    with pytest.raises(ConfigError, match="deeper"):
        parse(f"[{inside}]", "f.yaml")
