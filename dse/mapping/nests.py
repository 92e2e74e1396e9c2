"""What `dse map` searches for an op: one problem, or several that together do its work, with how often each runs.

conv, gemm, matmul and einsum are one problem. A transposed convolution is one ordinary convolution for every phase of
its stride, as zeros between the pixels are never multiplied. A recurrent layer is a product with the input, and a
product with the state that must be run step by step: a step needs the whole state of the step before, so that no
loop may lie outside of time, and what is reused over time must rest somewhere whole.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from dse.core.errors import ModelError
from dse.ir import Graph, Op, loop_nest
from dse.ir.kinds import (
    BINARY_KINDS,
    MAC_KINDS,
    MOVE_KINDS,
    NORM_KINDS,
    POOL_KINDS,
    RECURRENT_KINDS,
    REDUCTION_KINDS,
    SPIKING_KINDS,
    UNARY_KINDS,
)
from dse.ir.loopnest import GATES, Access, LoopNest
from dse.ir.recurrent import walks_backwards
from dse.mapping.problem import Problem, problem_of

#: Op kinds that are mapped: all that multiply and accumulate.
MAPPED_KINDS = MAC_KINDS
_REASONS = (
    (UNARY_KINDS, "elementwise"),
    (BINARY_KINDS, "elementwise"),
    (POOL_KINDS, "no products: window maxima or sums"),
    (REDUCTION_KINDS, "no products: a reduction"),
    (NORM_KINDS, "normalization"),
    (MOVE_KINDS, "moves values only"),
    (SPIKING_KINDS, "neuron state, no products"),
)


@dataclass(frozen=True)
class Part:
    """A problem that runs `repeat` times, one after the other; `kept` names a tensor that is the same every time.

    `label` is empty where an op is one part. A kept tensor that rests on the chip is loaded `loads` times. `resumes`
    names an output that starts from values which another part left in the outermost level.
    """

    label: str
    problem: Problem
    repeat: int = 1
    kept: str = ""
    loads: int = 1
    resumes: str = ""


def ways(graph: Graph, op: Op, *, dense: bool = True) -> tuple[tuple[Part, ...], ...]:
    """Ways to do an op, each a sequence of parts; the mapper takes the better one.

    Parameters
    ----------
    dense
        As `problem_of`.

    Raises
    ------
    ModelError: the op has no loop nest, or one that is not supported.
    """
    if op.kind in RECURRENT_KINDS:
        return _recurrent(graph, op, dense)
    if op.kind == "conv_transpose":
        return (_transposed(graph, op, dense),)
    nest = _named_apart(loop_nest(graph, op))
    if op.kind == "einsum":
        nest = _second_factor_as_weight(nest)
    return ((Part("", problem_of(nest, dense=dense)),),)


def reason_unmapped(kind: str) -> str:
    """Why ops of a kind are not mapped."""
    return next((reason for kinds, reason in _REASONS if kind in kinds), "no products")


def _named_apart(nest: LoopNest) -> LoopNest:
    """A tensor that is read twice, as in the product of a matrix with itself, is two: each way has its own tiles."""
    seen: set[str] = set()
    accesses = []
    for access in nest.accesses:
        name = access.tensor
        while name in seen:
            name += "'"
        seen.add(name)
        accesses.append(replace(access, tensor=name))
    return replace(nest, accesses=tuple(accesses))


def _second_factor_as_weight(nest: LoopNest) -> LoopNest:
    """Of two operands that are both activations the second takes the weights' place, as in a matmul."""
    inputs = [access for access in nest.accesses if access.role == "input"]
    if len(inputs) != 2 or any(access.role == "weight" for access in nest.accesses):
        return nest
    accesses = tuple(replace(a, role="weight") if a is inputs[1] else a for a in nest.accesses)
    return replace(nest, accesses=accesses)


def _transposed(graph: Graph, op: Op, dense: bool) -> tuple[Part, ...]:
    """Phases of the output grid; phases of equal shape are one part that repeats.

    Output row o takes kernel row r where o + pad - r * dilation is a multiple of the stride. All output pixels of a
    phase count, those at the border included, as in a convolution.
    """
    batch, channels, _, _ = graph[op.inputs[0]].shape
    _, per_group, kernel_h, kernel_w = graph[op.inputs[1]].shape
    _, _, out_h, out_w = graph[op.outputs[0]].shape
    groups = int(op.attributes["groups"])
    (stride_h, stride_w), (dil_h, dil_w) = op.attributes["strides"], op.attributes["dilations"]
    top, left, _, _ = op.attributes["pads"]
    shapes: dict[tuple[int, int, int, int, int, int], int] = {}
    for rows, kernel_rows, step_h in _phases(out_h, kernel_h, stride_h, dil_h, top):
        for columns, kernel_columns, step_w in _phases(out_w, kernel_w, stride_w, dil_w, left):
            shape = (rows, columns, kernel_rows, kernel_columns, step_h, step_w)
            shapes[shape] = shapes.get(shape, 0) + 1
    parts = []
    for (p, q, r, s, step_h, step_w), number in shapes.items():
        each = channels // groups
        nest = LoopNest(
            op.name,
            {"N": batch, "G": groups, "M": per_group, "C": each, "P": p, "Q": q, "R": r, "S": s},
            (
                Access(
                    op.inputs[0],
                    ({"N": 1}, {"G": each, "C": 1}, {"P": 1, "R": step_h}, {"Q": 1, "S": step_w}), (0,) * 4, "input",
                ),
                Access(op.inputs[1], ({"G": each, "C": 1}, {"M": 1}, {"R": 1}, {"S": 1}), (0,) * 4, "weight"),
                Access(op.outputs[0], ({"N": 1}, {"G": per_group, "M": 1}, {"P": 1}, {"Q": 1}), (0,) * 4, "output"),
            ),
            frozenset({"C", "R", "S"}),
        )  # fmt: skip
        label = "" if len(shapes) == 1 and number == 1 else f"phase {r} x {s}"
        parts.append(Part(label, problem_of(nest, dense=dense), number))
    if not parts:
        raise ModelError(f"op {op.name!r}: its kernel reaches no output pixel")
    return tuple(parts)


def _phases(outputs: int, kernel: int, stride: int, dilation: int, pad: int) -> list[tuple[int, int, int]]:
    """(output rows, kernel rows, input rows between kernel rows) of every phase that some kernel row reaches."""
    found = []
    for phase in range(stride):
        rows = len(range((phase - pad) % stride, outputs, stride))
        taps = [r for r in range(kernel) if (phase - r * dilation) % stride == 0]
        if rows and taps:
            # taps are equally far apart: their distance times the dilation is a multiple of the stride
            step = (taps[1] - taps[0]) * dilation // stride if len(taps) > 1 else 1
            found.append((rows, len(taps), step))
    return found


def _recurrent(graph: Graph, op: Op, dense: bool) -> tuple[tuple[Part, ...], ...]:
    """Two ways: input and state side by side in every step, or all products with the input first.

    The candidate gate of a gru without `linear_before_reset` waits for its reset gate: a step is two products.
    """
    steps, batch, features = graph[op.inputs[0]].shape
    hidden, gates = graph[op.inputs[2]].shape[2], GATES[op.kind]
    directions = len(walks_backwards(op))
    waits = op.kind == "gru" and not op.attributes["linear_before_reset"]
    blocks = {"gates": gates - 1, "candidate": 1} if waits else {"step": gates}
    x, w, r, y = op.inputs[0], op.inputs[1], op.inputs[2], op.outputs[0]

    def gemm(label: str, rows: int, columns: int, depth: int, names: tuple[str, str, str]) -> Problem:
        return problem_of(
            LoopNest(
                f"{op.name} {label}", {"N": rows, "M": columns, "C": depth},
                (Access(names[0], ({"N": 1}, {"C": 1}), (0, 0), "input"),
                 Access(names[1], ({"M": 1}, {"C": 1}), (0, 0), "weight"),
                 Access(names[2], ({"N": 1}, {"M": 1}), (0, 0), "output")),
                frozenset({"C"}),
            ),
            dense=dense,
        )  # fmt: skip

    repeat = steps * directions
    joined = tuple(
        Part(label, gemm(label, batch, part * hidden, features + hidden, (f"{x}+h", f"{w}+{r}", y)), repeat,
             f"{w}+{r}", directions)
        for label, part in blocks.items()
    )  # fmt: skip
    first = Part("input", gemm("input", steps * batch, gates * hidden, features, (x, w, f"{y}.gates")), directions)
    after = tuple(
        Part(label, gemm(label, batch, part * hidden, hidden, (f"{y}.h", r, f"{y}.sums")), repeat, r, directions,
             f"{y}.sums")
        for label, part in blocks.items()
    )  # fmt: skip
    return joined, (first, *after)


def unmapped(graph: Graph) -> Mapping[str, int]:
    """Ops that are not mapped, counted by kind in order of first appearance."""
    found: dict[str, int] = {}
    for op in graph.ops:
        if op.kind not in MAPPED_KINDS:
            found[op.kind] = found.get(op.kind, 0) + 1
    return found
