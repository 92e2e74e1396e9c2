"""Constraints: parsed as Python would, refused where Python would not help, never evaluated as code."""

from __future__ import annotations

import ast
import contextlib
import operator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.config.expression import ExpressionError, Name, evaluate, parse_constraint

VALUES = {"rows": 8.0, "columns": 4.0, "area_mm2": 2.25, "decisions.gather": 1.0}


def oracle(text: str) -> float:
    """The same arithmetic through Python's own parser, the slow and obvious way."""
    symbols = {ast.Add: operator.add, ast.Sub: operator.sub, ast.Mult: operator.mul, ast.Div: operator.truediv}

    def value(node: ast.expr) -> float:
        if isinstance(node, ast.Constant):
            return float(node.value)  # type: ignore[arg-type]
        if isinstance(node, ast.UnaryOp):
            return -value(node.operand)
        if isinstance(node, ast.BinOp):
            return symbols[type(node.op)](value(node.left), value(node.right))
        return VALUES[ast.unparse(node)]

    return value(ast.parse(text, mode="eval").body)


numbers = st.integers(0, 10_000).map(str) | st.floats(0.001, 1e6).map(lambda x: f"{x:.6g}")
expressions = st.recursive(
    numbers | st.sampled_from(sorted(VALUES)),
    lambda inner: (
        st.tuples(inner, st.sampled_from(["+", "-", "*", "/", " + ", " - "]), inner).map("".join)
        | inner.map(lambda text: f"({text})")
        | inner.map(lambda text: f"-({text})")
    ),
    max_leaves=12,
)


@given(expressions, st.sampled_from(["<=", ">="]))
def test_expressions_have_the_value_python_gives_them(text: str, relation: str) -> None:
    try:
        expected = oracle(text)
    except ZeroDivisionError:
        with pytest.raises(ExpressionError, match="division by zero"):
            parse_constraint(f"{text} {relation} 1").violation(VALUES)
        return
    assert evaluate(parse_constraint(f"{text}{relation}1").left, VALUES) == pytest.approx(expected, rel=1e-12, abs=1e-9)


@given(st.text(max_size=80))
def test_any_text_is_a_constraint_or_a_clear_error(text: str) -> None:
    with contextlib.suppress(ExpressionError):
        assert parse_constraint(text).relation in text


def test_a_violation_is_relative_to_the_bound_and_signed() -> None:
    constraint = parse_constraint("rows * columns <= 16")
    assert constraint.violation(VALUES) == pytest.approx(1.0)
    assert not constraint.holds(VALUES)
    assert parse_constraint("rows * columns <= 64").violation(VALUES) == pytest.approx(-0.5)
    assert parse_constraint("area_mm2 >= 4.5").violation(VALUES) == pytest.approx(0.5)
    assert parse_constraint("rows >= 0").violation(VALUES) == pytest.approx(-8)


def test_names_may_carry_their_scope() -> None:
    constraint = parse_constraint("hardware.rows + decisions.gather <= 9")
    assert constraint.names == {"hardware.rows", "decisions.gather"}
    assert constraint.holds(VALUES)
    assert evaluate(Name("hardware.rows"), {"hardware.rows": 3, "rows": 8}) == 3


@pytest.mark.parametrize(
    "text",
    [
        "",
        "rows",
        "rows <= ",
        "<= 3",
        "rows < 3",
        "rows <= 3 <= 4",
        "rows == 3",
        "rows ** 2 <= 3",
        "rows[0] <= 3",
        "__import__('os') <= 1",
        "rows.real() <= 1",
        "(rows <= 3",
        "rows) <= 3",
        "3 4 <= 5",
        "a" * 600 + " <= 1",
        "(" * 200 + "1" + ")" * 200 + " <= 1",
        "-" * 300 + "1 <= 1",
    ],
)
def test_what_is_not_a_constraint_is_refused(text: str) -> None:
    with pytest.raises(ExpressionError):
        parse_constraint(text)


def test_a_value_that_is_missing_or_no_number_is_named() -> None:
    with pytest.raises(ExpressionError, match="'colums' has no value"):
        parse_constraint("colums <= 3").violation(VALUES)
    with pytest.raises(ExpressionError, match="'dataflow' has the value 'ws'"):
        parse_constraint("dataflow <= 3").violation({"dataflow": "ws"})  # type: ignore[dict-item]
    with pytest.raises(ExpressionError, match="not a number"):
        parse_constraint("a - b <= 3").violation({"a": float("inf"), "b": float("inf")})
