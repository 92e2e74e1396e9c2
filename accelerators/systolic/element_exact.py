"""Integers of the element unit that equal a float32 rule of the reference: tried, then proven over every input.

onnxruntime computes sums, products and averages of int8 tensors in float32. The element unit has a 24-bit multiplier,
a shift and a rounding. Whether some setting of them gives the same int8 for every pair of operands (65,536), or for
every sum that a window can have, depends on the scales. Where none does, the op stays on the host.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping

import numpy as np
import numpy.typing as npt

from dse.ir import Graph, Op
from dse.ir.graph import Quantization
from dse.ir.quantized import clamp_bounds, quantization_of
from dse.ir.reference import run_op_quantized
from dse.ir.requantize import encode_add
from dse.program.tile.isa_element import Rounding
from dse.program.tile.kernels_element import round_shift, saturate

IntArray = npt.NDArray[np.int64]
Fields = Mapping[str, int]

_MULTIPLIER_BITS, _MAX_SHIFT = 24, 62
#: Multipliers beside the nearest one that are tried.
_NEIGHBOURS = (0, 1, -1, 2, -2)
#: Of a sum that float32 rounds in every step: relative error of one rounding.
_EPSILON = 2.0**-24
#: Maps that the reference computes at a time.
_CHUNK = 4096
_CODES = np.arange(-128, 128)


def add_fields(graph: Graph, op: Op, mode: str) -> Fields | None:
    """Fields of an ELEMENT ADD that equals an add of two int8 tensors in a requantization mode; None: there are none.

    In `q31` the rule is the element unit's own. A clamp other than int8's own (`activation`) has no field.
    """
    of_a, of_b, of_y = (quantization_of(graph, name) for name in (*op.inputs, *op.outputs))
    if clamp_bounds(op, of_y) != (-128, 127):
        return None
    try:
        first, second, shift = encode_add(of_a.scale[0], of_b.scale[0], of_y.scale[0])
    except ValueError:
        return None
    zeros = {"zero_a": of_a.zero_point, "zero_b": of_b.zero_point, "zero_point": of_y.zero_point}

    def settings() -> Iterator[Fields]:
        for beside in _NEIGHBOURS if mode == "ort" else (0,):
            for other in _NEIGHBOURS if mode == "ort" else (0,):
                if not 0 < first + beside < 1 << _MULTIPLIER_BITS or not 0 < second + other < 1 << _MULTIPLIER_BITS:
                    continue
                for rounding in (Rounding.HALF_EVEN, Rounding.HALF_UP) if mode == "ort" else (Rounding.HALF_UP,):
                    yield {**zeros, "multiplier_a": first + beside, "multiplier_b": second + other, "shift": shift,
                           "rounding": rounding}  # fmt: skip

    x, y = _CODES[:, None] - of_a.zero_point, _CODES[None, :] - of_b.zero_point
    return _first_equal(
        settings(),
        lambda f: (
            round_shift(x * f["multiplier_a"] + y * f["multiplier_b"], f["shift"], f["rounding"]) + f["zero_point"]
        ),
        _pairs(graph, op, mode),
    )


def mul_fields(graph: Graph, op: Op, mode: str) -> Fields | None:
    """Fields of an ELEMENT MUL that equals a product of two int8 tensors for every pair; None: there are none."""
    of_a, of_b, of_y = (quantization_of(graph, name) for name in (*op.inputs, *op.outputs))
    scaled = _scaled(of_a.scale[0] * of_b.scale[0] / of_y.scale[0])
    if scaled is None:
        return None
    zeros = {"zero_a": of_a.zero_point, "zero_b": of_b.zero_point, "zero_point": of_y.zero_point}
    product = (_CODES[:, None] - of_a.zero_point) * (_CODES[None, :] - of_b.zero_point)
    return _first_equal(
        ({**zeros, **fields} for fields in _single(scaled)),
        lambda f: round_shift(product * f["multiplier_a"], f["shift"], f["rounding"]) + f["zero_point"],
        _pairs(graph, op, mode),
    )


def average_fields(graph: Graph, op: Op, area: int) -> Fields | None:
    """Fields of a POOL AVERAGE over windows of `area` values that equals an average pool; None: there are none.

    A global average pool is a function of the sum: all sums are compared. An average pool adds up in float32 in an
    order of its own: it is equal where no exact average lies so near to a tie that the roundings could cross it.
    """
    of_x, of_y = quantization_of(graph, op.inputs[0]), quantization_of(graph, op.outputs[0])
    ratio = of_x.scale[0] / of_y.scale[0]
    scaled = _scaled(ratio / area)
    if scaled is None:
        return None
    sums = np.arange(-128 * area, 127 * area + 1)
    if op.kind == "global_average_pool" and not op.attributes.get("between_reals"):
        target = _global_averages(graph, op, sums, area)
    else:
        exact = np.asarray((sums - of_x.zero_point * area) * (ratio / area), np.float64)
        if not _clear_of_ties(exact, ratio, area, of_x, of_y):
            return None
        target = np.clip(np.rint(exact) + of_y.zero_point, -128, 127).astype(np.int8)
    zeros = {"zero_a": of_x.zero_point, "zero_point": of_y.zero_point}
    return _first_equal(
        ({**zeros, **fields} for fields in _single(scaled)),
        lambda f: (
            round_shift((sums - area * f["zero_a"]) * f["multiplier_a"], f["shift"], f["rounding"]) + f["zero_point"]
        ),
        target,
    )


def _global_averages(graph: Graph, op: Op, sums: IntArray, area: int) -> npt.NDArray[np.int8]:
    """What the reference makes of maps with given sums."""
    height, width = graph[op.inputs[0]].shape[2:]
    found = []
    for begin in range(0, len(sums), _CHUNK):
        whole, rest = np.divmod(sums[begin : begin + _CHUNK], area)
        values = (whole[:, None] + (np.arange(area) < rest[:, None])).astype(np.int8)
        wanted = run_op_quantized(graph, op, {op.inputs[0]: values.reshape(-1, 1, height, width)}, "ort")
        found.append(np.asarray(wanted[op.outputs[0]], np.int8).ravel())
    return np.concatenate(found)


def _clear_of_ties(
    exact: npt.NDArray[np.float64], ratio: float, area: int, of_x: Quantization, of_y: Quantization
) -> bool:
    """Whether float32 arithmetic rounds every average to the side that the exact one lies on."""
    most = area * max(-128 - of_x.zero_point, 127 - of_x.zero_point, key=abs)
    # values of one sign add up to their magnitudes' sum
    one_sign = of_x.zero_point in (-128, 127)
    magnitude = np.abs(exact) if one_sign else np.full(exact.shape, abs(most) * ratio / area)
    error = _EPSILON * ((area + 4) * magnitude + 2 * (np.abs(exact) + abs(of_y.zero_point) + 1))
    distance = np.abs(np.abs(exact - np.floor(exact)) - 0.5)
    position = exact + of_y.zero_point
    inside = (position > -128.5 - error) & (position < 127.5 + error)
    return bool((distance > error)[inside].all())


def _scaled(real: float) -> tuple[int, int] | None:
    """Multiplier of 24 bits and shift that stand for a positive number; None when none do."""
    if not real > 0 or math.isinf(real):
        return None
    shift = _MULTIPLIER_BITS - math.frexp(real)[1]
    multiplier = round(math.ldexp(real, shift))
    if multiplier == 1 << _MULTIPLIER_BITS:
        multiplier, shift = multiplier >> 1, shift - 1
    return (multiplier, shift) if 0 <= shift <= _MAX_SHIFT else None


def _single(scaled: tuple[int, int]) -> Iterator[Fields]:
    """Settings near a multiplier and shift."""
    multiplier, shift = scaled
    for beside in _NEIGHBOURS:
        if 0 < multiplier + beside < 1 << _MULTIPLIER_BITS:
            for rounding in (Rounding.HALF_EVEN, Rounding.HALF_UP):
                yield {"multiplier_a": multiplier + beside, "shift": shift, "rounding": rounding}


def _first_equal(
    settings: Iterator[Fields], compute: Callable[[Fields], IntArray], wanted: npt.NDArray[np.int8]
) -> Fields | None:
    return next((fields for fields in settings if np.array_equal(saturate(compute(fields), 8), wanted)), None)


def _pairs(graph: Graph, op: Op, mode: str) -> npt.NDArray[np.int8]:
    """What the reference makes of every pair of int8 operands: shape (256, 256)."""
    codes = _CODES.astype(np.int8)
    a, b = np.broadcast_to(codes[:, None], (256, 256)), np.broadcast_to(codes[None, :], (256, 256))
    found = run_op_quantized(graph, op, {op.inputs[0]: a, op.inputs[1]: b}, mode)
    return np.asarray(found[op.outputs[0]], np.int8)
