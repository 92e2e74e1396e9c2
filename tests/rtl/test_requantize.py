"""The requantizer lanes equal `dse.ir.requantize` bit for bit, at one value a cycle and their stated latency."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from amaranth.hdl import signed, unsigned
from amaranth.sim import Simulator
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.ir.requantize import add_q31, encode_add, encode_scale, requantize
from dse.program.tile.timing_vector import REQUANTIZE_CYCLES, RESIDUAL_ADD_CYCLES
from dse.rtl.requantize import AddQ31, RequantizeOrt, RequantizeQ31, RoundShift, SplitMultiplier

IntArray = npt.NDArray[np.int64]
INT32_MIN, INT32_MAX = -(2**31), 2**31 - 1


def stream_through(
    component: Any, columns: Mapping[str, IntArray], constants: Mapping[str, int], *, result: str = "result"
) -> IntArray:
    """Feed one row of `columns` a cycle, read `result` `latency` cycles later: no bubbles between values."""
    rows = list(zip(*(np.asarray(c).tolist() for c in columns.values()), strict=True))
    ports = [getattr(component, name) for name in columns]
    read = getattr(component, result)
    seen: list[int] = []

    async def bench(ctx: Any) -> None:
        for name, value in constants.items():
            ctx.set(getattr(component, name), value)
        for index in range(len(rows) + component.latency):
            if index < len(rows):
                for port, value in zip(ports, rows[index], strict=True):
                    ctx.set(port, value)
            if index >= component.latency:
                seen.append(ctx.get(read))
            await ctx.tick()

    simulator = Simulator(component)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return np.array(seen, np.int64)


def accumulators(rng: np.random.Generator, count: int) -> IntArray:
    """int32 values of every magnitude, both signs, with the extremes and values next to powers of two."""
    edges = [0, 1, -1, INT32_MAX, INT32_MIN, INT32_MIN + 1, (1 << 24) - 1, (1 << 25) - 1, (1 << 31) - 128]
    edges += [sign * ((1 << bit) + near) for bit in range(1, 31) for near in (-1, 0, 1) for sign in (1, -1)]
    wide = rng.integers(INT32_MIN, INT32_MAX + 1, count) >> rng.integers(0, 31, count)
    return np.concatenate([np.array(edges, np.int64), wide])


def scales(rng: np.random.Generator, acc: IntArray) -> npt.NDArray[np.float64]:
    """Positive scales that mostly bring `acc` near int8, some far too small or too large."""
    target = rng.uniform(0.2, 300, len(acc)) * np.where(rng.random(len(acc)) < 0.15, 2.0 ** rng.integers(-20, 12), 1)
    return np.clip(target / np.maximum(np.abs(acc), 1), 2.0**-30, 2.0**20)


def ties(count: int, mode: str) -> tuple[IntArray, IntArray, IntArray]:
    """Sums, multipliers and shifts whose exact product lies on or one step beside k + 1/2."""
    bits = 23 if mode == "ort" else 30
    acc, multiplier, shift = [], [], []
    for k in range(count):
        odd = (2 * (k % 290) + 1) * (1 if k % 2 else -1)
        for near in (-1, 0, 1):
            # a power-of-two scale of 2**-8 over (k + 1/2) * 2**8
            acc.append(odd * 128 + near)
            multiplier.append(1 << bits)
            shift.append(bits + 8)
            # 1.5 * 2**-4 over multiples of 2**3: ties of an odd multiplier
            acc.append(odd * 8 + near)
            multiplier.append(3 << (bits - 1))
            shift.append(bits + 4)
    return np.array(acc), np.array(multiplier), np.array(shift)


def lane_cases(mode: str, seed: int) -> tuple[IntArray, IntArray, IntArray, IntArray]:
    """(acc, bias, multiplier, shift) with ties, carries, extremes and random values; acc + bias fits int32."""
    rng = np.random.default_rng(seed)
    total = accumulators(rng, 1500)
    multiplier, shift = encode_scale(scales(rng, total), mode)
    tie_total, tie_multiplier, tie_shift = ties(200, mode)
    total = np.concatenate([total, tie_total])
    multiplier, shift = np.concatenate([multiplier, tie_multiplier]), np.concatenate([shift, tie_shift])
    extreme = rng.random(len(total)) < 0.15
    top = (1 << (24 if mode == "ort" else 31)) - 1
    multiplier = np.where(extreme, rng.choice([top, (top >> 1) + 1, top - 1], len(total)), multiplier)
    anywhere = rng.random(len(total)) < 0.1
    shift = np.where(anywhere, rng.integers(1, 63, len(total)), shift)
    bias = rng.integers(-(2**20), 2**20, len(total))
    bias = np.where((total - bias >= INT32_MIN) & (total - bias <= INT32_MAX), bias, 0)
    return total - bias, bias, multiplier, shift


@pytest.mark.parametrize(
    ("zero_point", "low", "high"), [(0, -128, 127), (-128, -128, 127), (127, -7, 90), (-3, -3, 60)]
)
@pytest.mark.parametrize(("mode", "lane"), [("q31", RequantizeQ31), ("ort", RequantizeOrt)])
def test_lane_equals_reference_on_ties_carries_and_extremes(
    mode: str, lane: type, zero_point: int, low: int, high: int
) -> None:
    acc, bias, multiplier, shift = lane_cases(mode, seed=zero_point + 1000)
    got = stream_through(
        lane(),
        {"acc": acc, "bias": bias, "multiplier": multiplier, "shift": shift},
        {"zero_point": zero_point, "low": low, "high": high},
    )
    expected = requantize(acc + bias, multiplier, shift, zero_point, low, high, mode).astype(np.int64)
    assert len(got) > 2500
    wrong = np.flatnonzero(got != expected)
    assert wrong.size == 0, [(acc[i] + bias[i], multiplier[i], shift[i], got[i], expected[i]) for i in wrong[:5]]
    assert len(np.unique(got)) > (high - low) // 2


@settings(max_examples=25, deadline=None)
@given(
    st.sampled_from(["q31", "ort"]),
    st.lists(
        st.tuples(
            st.integers(INT32_MIN, INT32_MAX),
            st.integers(0, 2**23 - 1),
            st.integers(1, 62),
        ),
        min_size=20,
        max_size=60,
    ),
)
def test_lane_equals_reference_for_any_legal_operands(mode: str, rows: list[tuple[int, int, int]]) -> None:
    acc = np.array([r[0] for r in rows], np.int64)
    mantissa = np.array([r[1] for r in rows], np.int64)
    multiplier = mantissa + 2**23 if mode == "ort" else 2**30 + mantissa * 127
    # half of the shifts bring the product near int8, where roundings show
    near = np.where(np.arange(len(rows)) % 2, [max(abs(int(a)), 1).bit_length() + 16 for a in acc], 0)
    shift = np.where(near > 0, near + (0 if mode == "ort" else 7), [r[2] for r in rows])
    lane = RequantizeOrt() if mode == "ort" else RequantizeQ31()
    got = stream_through(
        lane,
        {"acc": acc, "bias": np.zeros_like(acc), "multiplier": multiplier, "shift": shift},
        {"zero_point": 0, "low": -128, "high": 127},
    )
    assert np.array_equal(got, requantize(acc, multiplier, shift, 0, -128, 127, mode))


@pytest.mark.parametrize(("mode", "lane"), [("q31", RequantizeQ31), ("ort", RequantizeOrt)])
def test_every_shift_equals_reference_for_every_magnitude(mode: str, lane: type) -> None:
    rng = np.random.default_rng(17)
    totals = [0, 1, -1, INT32_MAX, INT32_MIN] + [int(v) * (-1) ** i for i, v in enumerate(3 << np.arange(30))]
    acc, shift = (grid.ravel() for grid in np.meshgrid(np.array(totals), np.arange(1, 63)))
    bits = 24 if mode == "ort" else 31
    multiplier = rng.integers(1 << (bits - 1), 1 << bits, len(acc))
    order = rng.permutation(len(acc))
    acc, shift = acc[order], shift[order]
    columns = {"acc": acc, "bias": np.zeros_like(acc), "multiplier": multiplier, "shift": shift}
    got = stream_through(lane(), columns, {"zero_point": 3, "low": -128, "high": 127})
    expected = requantize(acc, multiplier, shift, 3, -128, 127, mode).astype(np.int64)
    assert [c for c in zip(acc, multiplier, shift, got, expected, strict=True) if c[3] != c[4]] == []


def double_rounding_cases() -> tuple[IntArray, IntArray, IntArray]:
    """Operands of `ort` whose first or second rounding to 24 bits decides on which side of k + 1/2 the last one is.

    q is k + 1/2 as a 24-bit mantissa. Sums just around q test the first rounding, multiplied by a power of two;
    products just around q, split into two factors, the second.
    """
    divisors = np.arange(3, 1 << 13, 2)
    rows: list[tuple[int, int, int]] = []
    for k in range(127):
        room = 24 - (2 * k + 1).bit_length()
        q = (2 * k + 1) << room
        # in units of 1/8 of q's last place: ties of the mantissas at and below q, and one step beside each
        for eighths in (-5, -4, -3, 3, 4, 5):
            rows.append((8 * q + eighths, 1 << 23, 23 + room + 4))
        for extra, offset in ((1, 1), (1, -1), (2, 1), (2, 3), (2, -1), (2, -3)):
            product = (q << extra) + offset
            for b in divisors[product % divisors == 0].tolist():
                for factor in (b, product // b):
                    lift = 24 - factor.bit_length()
                    if lift >= 0 and (product // factor).bit_length() <= 24:
                        rows.append((product // factor, factor << lift, room + extra + 1 + lift))
    acc, multiplier, shift = (np.array(column, np.int64) for column in zip(*rows, strict=True))
    sign = np.where(np.arange(len(acc)) % 3 == 0, -1, 1)
    return acc * sign, multiplier, shift


def test_ort_lane_rounds_to_24_bits_twice_as_float32_does() -> None:
    acc, multiplier, shift = double_rounding_cases()
    columns = {"acc": acc, "bias": np.zeros_like(acc), "multiplier": multiplier, "shift": shift}
    got = stream_through(RequantizeOrt(), columns, {"zero_point": 0, "low": -128, "high": 127})
    scale = np.ldexp(multiplier.astype(np.float32), -shift)
    in_float32 = np.clip(np.rint(acc.astype(np.float32) * scale), -128, 127)
    assert np.array_equal(got, in_float32.astype(np.int64))
    assert np.array_equal(got, requantize(acc, multiplier, shift, 0, -128, 127, "ort"))
    # the cases bite: rounding once, without the 24-bit steps, gives other values
    exact = acc.astype(np.float64) * multiplier.astype(np.float64) * 2.0**-shift
    assert (np.rint(exact) != got).sum() > 200


@pytest.mark.parametrize("lane", [RequantizeQ31, RequantizeOrt])
def test_unused_channel_gives_the_zero_point(lane: type) -> None:
    acc = np.array([0, 5, INT32_MIN, INT32_MAX], np.int64)
    zeros = np.zeros(4, np.int64)
    columns = {"acc": acc, "bias": zeros, "multiplier": zeros, "shift": zeros}
    assert stream_through(lane(), columns, {"zero_point": -5, "low": -128, "high": 127}).tolist() == [-5] * 4


def test_add_lane_equals_reference_on_all_pairs_of_chosen_values() -> None:
    rng = np.random.default_rng(7)
    y, residual = (grid.ravel() for grid in np.meshgrid(np.arange(-128, 128, 5), np.arange(-128, 128, 7)))
    for scale_y, scale_residual, scale_out in [(0.5, 0.5, 1.0), (0.031, 0.07, 0.05), (1.0, 1.0, 0.25), (2.0**-9, 1, 1)]:
        multipliers = encode_add(scale_y, scale_residual, scale_out)
        zero_y, zero_residual, zero_out = (int(z) for z in rng.integers(-128, 128, 3))
        got = stream_through(
            AddQ31(),
            {"y": y, "residual": residual},
            {
                "zero_y": zero_y,
                "zero_residual": zero_residual,
                "zero_out": zero_out,
                "multiplier_y": multipliers[0],
                "multiplier_residual": multipliers[1],
                "shift": multipliers[2],
                "low": -100,
                "high": 120,
            },
        )
        bytes_y, bytes_residual = y.astype(np.int8), residual.astype(np.int8)
        expected = add_q31(bytes_y, bytes_residual, zero_y, zero_residual, multipliers, zero_out, -100, 120)
        assert np.array_equal(got, expected.astype(np.int64))


def test_add_lane_with_neutral_operands_hands_every_value_on() -> None:
    y = np.arange(-128, 128)
    neutral = {"multiplier_y": 1, "multiplier_residual": 0, "shift": 0, "low": -128, "high": 127}
    assert np.array_equal(stream_through(AddQ31(), {"y": y, "residual": -y % 100}, neutral), y)


@pytest.mark.parametrize("value_bits", [34, 64])
def test_round_shift_rounds_half_up_and_saturates_only_beyond_1024(value_bits: int) -> None:
    rng = np.random.default_rng(value_bits)
    limit = 1 << (value_bits - 1)
    shift = rng.integers(0, 64, 2000)
    small = [int(rng.integers(-1100, 1100)) << max(int(s) - 1, 0) for s in shift]
    value = np.array([v if -limit <= v < limit else v % limit for v in small], np.int64)
    value[::3] = rng.integers(-limit, limit, len(value[::3]), dtype=np.int64)
    value[:4] = [limit - 1, -limit, limit - 1, -limit]
    shift[:4] = [0, 0, 63, 63]
    component = RoundShift(value_bits)
    floor = stream_through(component, {"value": value, "shift": shift}, {}, result="floor")
    component = RoundShift(value_bits)
    up = stream_through(component, {"value": value, "shift": shift}, {}, result="up")
    exact = np.array(
        [(int(v) + ((1 << int(s)) >> 1)) >> int(s) for v, s in zip(value, shift, strict=True)], dtype=object
    )
    inside = np.abs(exact) <= 1023
    assert inside.sum() > 500
    assert np.array_equal((floor + up)[inside], exact[inside].astype(np.int64))
    assert (np.abs((floor + up)[~inside]) >= 1023).all()
    assert (np.sign((floor + up)[~inside]) == np.array([1 if e > 0 else -1 for e in exact[~inside]])).all()


@pytest.mark.parametrize(
    ("shape", "b_bits", "latency"),
    [(signed(32), 32, 3), (unsigned(25), 24, 3), (signed(9), 24, 2), (unsigned(17), 20, 2), (signed(19), 17, 3)],
)
def test_split_multiplier_is_exact_for_extremes_and_random_operands(shape: Any, b_bits: int, latency: int) -> None:
    rng = np.random.default_rng(shape.width)
    low = -(1 << (shape.width - 1)) if shape.signed else 0
    high = (1 << (shape.width - shape.signed)) - 1
    a = np.concatenate([[low, low, high, high, 0], rng.integers(low, high + 1, 400)])
    b = np.concatenate([[0, (1 << b_bits) - 1, 1, (1 << b_bits) - 1, 5], rng.integers(0, 1 << b_bits, 400)])
    component = SplitMultiplier(shape, b_bits)
    assert component.latency == latency
    got: list[int] = []

    async def bench(ctx: Any) -> None:
        for index in range(len(a) + latency):
            if index < len(a):
                ctx.set(component.a, int(a[index]))
                ctx.set(component.b, int(b[index]))
            if index >= latency:
                got.append(ctx.get(component.product))
            await ctx.tick()

    simulator = Simulator(component)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    assert got == [int(x) * int(y) for x, y in zip(a, b, strict=True)]


def test_latencies_equal_the_timing_model() -> None:
    assert {"q31": RequantizeQ31.latency, "ort": RequantizeOrt.latency} == dict(REQUANTIZE_CYCLES)
    assert {"q31": AddQ31.latency, "ort": 0} == dict(RESIDUAL_ADD_CYCLES)
