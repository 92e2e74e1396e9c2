"""Reading a `.einsum.yaml` file, untrusted, into a Graph.

    name: conv3x3                                  # optional
    dims: {k: 16, c: 8, p: 14, q: 14, r: 3, s: 3}
    statements:
      - O[k,p,q] += I[c,p+r,q+s] * W[k,c,r,s]
    weights: [W]                                   # optional: constants; all other free tensors are inputs
    seed: 0                                        # optional: of the weights, He-normal

Shapes follow from the accesses. Dims count from 0; an index below 0 is an error (there is no padding). Convolutions
and dense layers without a batch axis get one of extent 1, and so do inputs and outputs that only they touch.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dse.config.marked_yaml import MAX_BYTES, parse
from dse.core.errors import ConfigError, ModelError, nearest
from dse.ir.einsum import axis_range
from dse.ir.graph import Graph
from workloads.einsum.build import Builder
from workloads.einsum.statement import Statement, TensorAccess, parse_statement

MAX_STATEMENTS, MAX_DIMS, MAX_EXTENT, MAX_ELEMENTS = 256, 32, 1 << 24, (1 << 31) - 1
_KEYS = ("name", "dims", "statements", "weights", "seed")


@dataclass(frozen=True)
class Program:
    """The checked contents of a file: extents, statements in order, shapes of all tensors."""

    name: str
    bounds: Mapping[str, int]
    statements: tuple[Statement, ...]
    shapes: Mapping[str, tuple[int, ...]]
    weights: tuple[str, ...]
    seed: int


def read_model(path: Path, dims: Mapping[str, int] | None = None, *, source: str | None = None) -> Graph:
    """The Graph of an einsum file: conv and gemm ops where recognised, einsum ops elsewhere.

    Parameters
    ----------
    dims
        Extents that replace those of the file, by name.
    source
        How messages call the model; the file's name when not given.

    Raises
    ------
    ModelError: anything that keeps the file from being read.
    """
    source = path.name if source is None else source
    program = read_program(_read_text(path, source), path.name.split(".")[0], dims or {}, source)
    builder = Builder(program.name, source, program.bounds, program.shapes, program.weights, program.seed)
    return builder.build(program.statements)


def _read_text(path: Path, source: str) -> str:
    try:
        if not path.is_file():
            raise ModelError(f"{source}: the file {'is no ordinary file' if path.exists() else 'does not exist'}")
        if path.stat().st_size > MAX_BYTES:
            raise ModelError(f"{source}: a file of {path.stat().st_size:,} bytes; at most {MAX_BYTES:,} are read")
        return path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise ModelError(f"{source}: cannot be read: {getattr(error, 'strerror', None) or error}") from error


def read_program(text: str, default_name: str, dims: Mapping[str, int], source: str) -> Program:
    """Parse and check the text of a file; parameters as `read_model`.

    Raises
    ------
    ModelError: not YAML, an unknown key, a malformed statement, shapes that do not fit.
    """
    try:
        data, marks = parse(text, source)
    except ConfigError as error:
        raise ModelError(str(error)) from error
    if not isinstance(data, dict):
        raise ModelError(f"{source}: must be a mapping with the keys {', '.join(_KEYS)}")
    for key in data:
        if key not in _KEYS:
            raise ModelError(f"{source}:{marks[(key,)].line}: {key!r} is not a key{nearest(key, _KEYS)}")
    bounds = _bounds(data.get("dims"), dims, source)
    lines = data.get("statements")
    if not isinstance(lines, list) or not 1 <= len(lines) <= MAX_STATEMENTS:
        raise ModelError(f"{source}: 'statements' must be a list of 1 to {MAX_STATEMENTS} statements")
    statements = []
    for index, line in enumerate(lines):
        where = f"{source}:{marks[('statements', index)].line}"
        if not isinstance(line, str):
            raise ModelError(f"{where}: a statement must be text, got {line!r:.60}")
        statements.append(_checked(parse_statement(line, where), bounds, where))
    shapes = _shapes(statements, bounds, source)
    weights = _weights(data.get("weights", []), statements, shapes, source)
    name, seed = data.get("name", default_name), data.get("seed", 0)
    if not isinstance(name, str) or not name:
        raise ModelError(f"{source}: 'name' must be a word, got {name!r:.60}")
    if not isinstance(seed, int) or isinstance(seed, bool) or seed < 0:
        raise ModelError(f"{source}: 'seed' must be an integer from 0, got {seed!r:.60}")
    return Program(name, bounds, tuple(statements), shapes, weights, seed)


def _bounds(given: Any, override: Mapping[str, int], source: str) -> dict[str, int]:
    if not isinstance(given, dict) or not 1 <= len(given) <= MAX_DIMS:
        raise ModelError(f"{source}: 'dims' must map 1 to {MAX_DIMS} dim names to extents")
    for name in override:
        if name not in given:
            raise ModelError(f"{source}: has no dimension {name!r} to bind{nearest(name, given)}")
    bounds = {**given, **override}
    for name, size in bounds.items():
        if not isinstance(size, int) or isinstance(size, bool) or not 1 <= size <= MAX_EXTENT:
            raise ModelError(f"{source}: dim {name!r} must be an integer from 1 to {MAX_EXTENT:,}, got {size!r:.60}")
    return bounds


def _checked(statement: Statement, bounds: Mapping[str, int], where: str) -> Statement:
    for dim in statement.dims:
        if dim not in bounds:
            raise ModelError(f"{where}: dim {dim!r} has no extent in 'dims'{nearest(dim, bounds)}")
    return statement


def _shapes(statements: list[Statement], bounds: Mapping[str, int], source: str) -> dict[str, tuple[int, ...]]:
    """Shapes of all tensors: of those written by the dims of their statement, of the others by what is read."""
    written = {statement.tensor: tuple(bounds[dim] for dim in statement.output) for statement in statements}
    if len(written) != len(statements):
        names = [statement.tensor for statement in statements]
        twice = next(name for name in names if names.count(name) > 1)
        raise ModelError(f"{source}: tensor {twice!r} is written by two statements; give each its own")
    shapes = dict(written)
    done: set[str] = set()
    for statement in statements:
        where = f"{source}: {statement.text!r}"
        for factor in statement.factors:
            if factor.tensor in written and factor.tensor not in done:
                raise ModelError(f"{where} reads {factor.tensor!r}, which only a later line writes")
            fixed = factor.tensor in written
            shapes[factor.tensor] = _extents(factor, bounds, shapes.get(factor.tensor), fixed=fixed, where=where)
        done.add(statement.tensor)
    for name, shape in shapes.items():
        if math.prod(shape) > MAX_ELEMENTS:
            raise ModelError(f"{source}: tensor {name!r} of shape {list(shape)} is above {MAX_ELEMENTS:,} elements")
    return shapes


def _extents(
    factor: TensorAccess, bounds: Mapping[str, int], known: tuple[int, ...] | None, *, fixed: bool, where: str
) -> tuple[int, ...]:
    """The shape of a tensor after this access: of a free tensor the largest index read so far."""
    before = known or (0,) * len(factor.axes)
    if len(before) != len(factor.axes):
        raise ModelError(f"{where}: {factor.tensor!r} has {len(factor.axes)} axes here and {len(before)} elsewhere")
    sizes = []
    for axis, index in enumerate(factor.axes):
        low, high = axis_range(index, bounds)
        what = f"{where}: axis {axis} of {factor.tensor!r} reaches index"
        if low < 0:
            raise ModelError(f"{what} {low}; the first is 0")
        if fixed and high >= before[axis]:
            raise ModelError(f"{what} {high}; it is written up to {before[axis] - 1}")
        sizes.append(max(before[axis], high + 1))
    return tuple(sizes)


def _weights(
    given: Any, statements: list[Statement], shapes: Mapping[str, tuple[int, ...]], source: str
) -> tuple[str, ...]:
    written = {statement.tensor for statement in statements}
    free = [name for name in shapes if name not in written]
    if not isinstance(given, list) or not all(isinstance(name, str) for name in given):
        raise ModelError(f"{source}: 'weights' must be a list of tensor names, got {given!r:.60}")
    for name in given:
        if name not in free:
            raise ModelError(f"{source}: weight {name!r} is no tensor that is only read{nearest(name, free)}")
    if len(set(given)) == len(free):
        raise ModelError(f"{source}: every tensor that is only read is a weight; one must be an input")
    return tuple(name for name in free if name in given)
