"""Constraints such as `rows * columns <= 64`: a tiny expression language, parsed without `eval`.

    constraint := sum ("<=" | ">=") sum
    sum        := product (("+" | "-") product)*
    product    := factor (("*" | "/") factor)*
    factor     := NUMBER | NAME | "-" factor | "(" sum ")"

Names are hardware parameters (`rows`, also written `hardware.rows`), decisions (`decisions.NAME`) and
metrics (`area_mm2`); who evaluates a constraint supplies their values.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

#: Longest accepted text; bounds the parser's recursion together with `_DEPTH`.
_LENGTH = 500
_DEPTH = 50

_TOKEN = re.compile(
    r"\s*(?:(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<name>[A-Za-z_]\w*(?:\.[A-Za-z_]\w*)*)"
    r"|(?P<symbol><=|>=|[-+*/()])|(?P<end>$)|(?P<bad>\S))"
)


class ExpressionError(ValueError):
    """A constraint's text cannot be parsed, or its value cannot be computed."""


@dataclass(frozen=True)
class Number:
    """A literal."""

    value: float


@dataclass(frozen=True)
class Name:
    """A parameter or metric by name."""

    name: str


@dataclass(frozen=True)
class Operation:
    """left `symbol` right."""

    symbol: Literal["+", "-", "*", "/"]
    left: Node
    right: Node


Node = Number | Name | Operation


@dataclass(frozen=True)
class Constraint:
    """`left <= right` or `left >= right`, as written in `text`."""

    text: str
    left: Node
    right: Node
    relation: Literal["<=", ">="]

    @property
    def names(self) -> frozenset[str]:
        """Every name the constraint needs a value for."""
        return frozenset(_names(self.left)) | frozenset(_names(self.right))

    def violation(self, values: Mapping[str, float]) -> float:
        """How far the constraint is broken, relative to its bound: > 0 broken, <= 0 kept.

        `(left - right) / |right|` for `<=`, mirrored for `>=`; the scale is 1 when the bound is 0. NaN, which
        compares as kept, is refused.

        Raises
        ------
        ExpressionError: a name has no value, a division by zero, or the result is not a number.
        """
        left, right = evaluate(self.left, values), evaluate(self.right, values)
        difference = left - right if self.relation == "<=" else right - left
        if difference != difference:
            raise ExpressionError(f"{self.text!r} is not a number for these values")
        return difference / (abs(right) or 1.0)

    def holds(self, values: Mapping[str, float]) -> bool:
        """Whether the constraint is kept."""
        return self.violation(values) <= 0


def evaluate(node: Node, values: Mapping[str, float]) -> float:
    """The value of an expression.

    Raises
    ------
    ExpressionError: a name has no numeric value, or a division by zero.
    """
    if isinstance(node, Number):
        return node.value
    if isinstance(node, Name):
        value = values.get(node.name)
        if value is None and node.name.startswith("hardware."):
            value = values.get(node.name.removeprefix("hardware."))
        if not isinstance(value, (int, float)):
            shown = "no value" if value is None else f"the value {value!r}, which is not a number"
            raise ExpressionError(f"{node.name!r} has {shown}")
        return float(value)
    left, right = evaluate(node.left, values), evaluate(node.right, values)
    if node.symbol == "+":
        return left + right
    if node.symbol == "-":
        return left - right
    if node.symbol == "*":
        return left * right
    if right == 0:
        raise ExpressionError("division by zero")
    return left / right


def parse_constraint(text: str) -> Constraint:
    """Parse `text`.

    Raises
    ------
    ExpressionError: names the text, the position and what was expected there.
    """
    if len(text) > _LENGTH:
        raise ExpressionError(f"a constraint may have {_LENGTH} characters, not {len(text)}")
    return _Parser(text).constraint()


def _names(node: Node) -> Iterator[str]:
    if isinstance(node, Name):
        yield node.name
    elif isinstance(node, Operation):
        yield from _names(node.left)
        yield from _names(node.right)


class _Parser:
    """Recursive descent over the tokens of one constraint."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = [match for match in _TOKEN.finditer(text) if match.lastgroup != "end"]
        self.position = 0
        for match in self.tokens:
            if match.lastgroup == "bad":
                raise ExpressionError(
                    f"{text!r}: character {match.start('bad') + 1} is {match['bad']!r};"
                    " a constraint has names, numbers, + - * / ( ) and one of <= >="
                )

    def constraint(self) -> Constraint:
        left = self._sum(0)
        relation = self._take("<=", ">=")
        if relation is None:
            raise self._expected("<= or >=")
        right = self._sum(0)
        if self.position < len(self.tokens):
            raise self._expected("the end")
        return Constraint(self.text, left, right, "<=" if relation == "<=" else ">=")

    def _sum(self, depth: int) -> Node:
        node = self._product(depth)
        while symbol := self._take("+", "-"):
            node = Operation("+" if symbol == "+" else "-", node, self._product(depth))
        return node

    def _product(self, depth: int) -> Node:
        node = self._factor(depth)
        while symbol := self._take("*", "/"):
            node = Operation("*" if symbol == "*" else "/", node, self._factor(depth))
        return node

    def _factor(self, depth: int) -> Node:
        if depth > _DEPTH:
            raise ExpressionError(f"{self.text!r} is nested deeper than {_DEPTH}")
        if self._take("-"):
            return Operation("-", Number(0.0), self._factor(depth + 1))
        if self._take("("):
            node = self._sum(depth + 1)
            if not self._take(")"):
                raise self._expected("')'")
            return node
        if self.position < len(self.tokens):
            token = self.tokens[self.position]
            if token["number"] is not None:
                self.position += 1
                return Number(float(token["number"]))
            if token["name"] is not None:
                self.position += 1
                return Name(token["name"])
        raise self._expected("a name, a number or '('")

    def _take(self, *symbols: str) -> str | None:
        if self.position < len(self.tokens) and self.tokens[self.position]["symbol"] in symbols:
            self.position += 1
            return str(self.tokens[self.position - 1]["symbol"])
        return None

    def _expected(self, what: str) -> ExpressionError:
        if self.position < len(self.tokens):
            token = self.tokens[self.position]
            return ExpressionError(f"{self.text!r}: expected {what}, found {token[0].strip()!r}")
        return ExpressionError(f"{self.text!r}: expected {what}, found the end")
