"""One line such as `O[k,p,q] += I[c,2*p+r-1,q+s] * W[k,c,r,s]`, parsed by a grammar of its own (nothing is evaluated).

statement: access ("+=" | "=") access ("*" access)*
access:    name "[" index ("," index)* "]"
index:     ["-"] term (("+" | "-") term)*
term:      integer | dim | integer "*" dim | dim "*" integer
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import NoReturn

from dse.core.errors import ModelError
from dse.ir.einsum import AxisIndex

_TOKEN = re.compile(r"\s*(?:(?P<name>[A-Za-z_][A-Za-z0-9_]*)|(?P<number>[0-9]+)|(?P<sign>\+=|[-+*=,\[\]]))")
MAX_CHARACTERS, MAX_FACTORS, MAX_AXES, MAX_NUMBER = 2000, 8, 12, 1 << 24


@dataclass(frozen=True)
class TensorAccess:
    """A tensor with the affine index of each of its axes."""

    tensor: str
    axes: tuple[AxisIndex, ...]


@dataclass(frozen=True)
class Statement:
    """A sum of products: dims that are not in `output` are summed over."""

    text: str
    tensor: str
    output: tuple[str, ...]
    factors: tuple[TensorAccess, ...]

    @property
    def dims(self) -> tuple[str, ...]:
        """Every dim: those of the output first, then in the order they appear."""
        inner = [dim for factor in self.factors for pairs, _ in factor.axes for dim, _ in pairs]
        return tuple(dict.fromkeys([*self.output, *inner]))


def parse_statement(text: str, where: str) -> Statement:
    """Parse one statement.

    Parameters
    ----------
    where
        Prefix of messages: file and line.

    Raises
    ------
    ModelError: the text does not follow the grammar, names what was found and what was expected.
    """
    if len(text) > MAX_CHARACTERS:
        raise ModelError(f"{where}: a statement of {len(text)} characters; at most {MAX_CHARACTERS} are read")
    return _Parser(text, where).statement()


class _Parser:
    """Recursive descent over the tokens of one statement."""

    def __init__(self, text: str, where: str) -> None:
        self.text, self.where = text.strip(), where
        self.tokens = self._tokens()
        self.next = 0

    def _tokens(self) -> list[tuple[str, str, int]]:
        tokens, position = [], 0
        while position < len(self.text):
            match = _TOKEN.match(self.text, position)
            if match is None:
                self._fail(f"{self.text[position:].strip()[:1]!r} has no meaning here", position)
            kind = str(match.lastgroup)
            tokens.append((kind, match[kind], match.start(kind)))
            position = match.end()
        return [*tokens, ("end", "the end", len(self.text))]

    def _fail(self, message: str, position: int) -> NoReturn:
        raise ModelError(f"{self.where}: {self.text!r}, column {position + 1}: {message}")

    def _take(self, kind: str, *choices: str) -> str:
        found, value, position = self.tokens[self.next]
        if found != kind or (choices and value not in choices):
            wanted = " or ".join(repr(choice) for choice in choices) or f"a {kind}"
            self._fail(f"expected {wanted}, found {value!r}", position)
        self.next += 1
        return value

    def _peek(self, *choices: str) -> bool:
        kind, value, _ = self.tokens[self.next]
        return kind == "sign" and value in choices

    def statement(self) -> Statement:
        target = self._access()
        sums = self._take("sign", "+=", "=") == "+="
        factors = [self._access()]
        while self._peek("*"):
            self._take("sign", "*")
            factors.append(self._access())
        end_kind, end_value, position = self.tokens[self.next]
        if end_kind != "end":
            self._fail(f"expected '*' or the end, found {end_value!r}", position)
        if len(factors) > MAX_FACTORS:
            self._fail(f"multiplies {len(factors)} tensors; at most {MAX_FACTORS} are supported", 0)
        output = self._output(target)
        statement = Statement(self.text, target.tensor, output, tuple(factors))
        summed = [dim for dim in statement.dims if dim not in output]
        if summed and not sums:
            self._fail(f"sums over {', '.join(summed)}, which needs '+='", 0)
        for dim in output:
            if all(dim != other for factor in factors for pairs, _ in factor.axes for other, _ in pairs):
                self._fail(f"dim {dim!r} of the output is read by no factor", 0)
        if any(factor.tensor == target.tensor for factor in factors):
            self._fail(f"reads {target.tensor!r}, the tensor it writes", 0)
        return statement

    def _output(self, access: TensorAccess) -> tuple[str, ...]:
        dims = []
        for pairs, offset in access.axes:
            if offset or len(pairs) != 1 or pairs[0][1] != 1:
                self._fail("the output is indexed by plain dims only, each axis by one", 0)
            dims.append(pairs[0][0])
        if len(set(dims)) != len(dims):
            self._fail("a dim indexes two axes of the output", 0)
        return tuple(dims)

    def _access(self) -> TensorAccess:
        name = self._take("name")
        self._take("sign", "[")
        axes = [self._index()]
        while self._peek(","):
            self._take("sign", ",")
            axes.append(self._index())
        self._take("sign", "]")
        if len(axes) > MAX_AXES:
            self._fail(f"{name!r} has {len(axes)} axes; at most {MAX_AXES} are supported", 0)
        return TensorAccess(name, tuple(axes))

    def _index(self) -> AxisIndex:
        sign = -1 if self._peek("-") else 1
        if sign < 0:
            self._take("sign", "-")
        coefficients: dict[str, int] = {}
        offset = 0
        while True:
            dim, value = self._term()
            if dim:
                coefficients[dim] = coefficients.get(dim, 0) + sign * value
            else:
                offset += sign * value
            if not self._peek("+", "-"):
                return tuple((dim, value) for dim, value in coefficients.items() if value), offset
            sign = 1 if self._take("sign", "+", "-") == "+" else -1

    def _term(self) -> tuple[str, int]:
        if self.tokens[self.next][0] == "name":
            dim = self._take("name")
            if self._peek("*"):
                self._take("sign", "*")
                return dim, self._number()
            return dim, 1
        value = self._number()
        if self._peek("*"):
            self._take("sign", "*")
            return self._take("name"), value
        return "", value

    def _number(self) -> int:
        position = self.tokens[self.next][2]
        text = self._take("number")
        if len(text) > 8 or int(text) > MAX_NUMBER:
            self._fail(f"the number {text[:20]} is above {MAX_NUMBER}", position)
        return int(text)
