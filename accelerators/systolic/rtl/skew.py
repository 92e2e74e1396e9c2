"""Delay lines: control bits with reset, so that nothing is in flight after power-up; data without."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from amaranth.hdl import Module, Signal, Value


def delay_data(m: Module, value: Any, cycles: int, name: str) -> Any:
    """`value` as it was `cycles` cycles ago, same shape, through registers without reset; `cycles` >= 0."""
    for cycle in range(cycles):
        stage = Signal.like(value, name=f"{name}_{cycle + 1}", reset_less=True)
        m.d.sync += stage.eq(value)
        value = stage
    return value


def delay_control(m: Module, value: Any, cycles: int, name: str) -> Any:
    """`value` as it was `cycles` cycles ago, same shape, through registers that power up at zero."""
    for cycle in range(cycles):
        stage = Signal.like(value, name=f"{name}_{cycle + 1}", init=None, reset_less=False)
        m.d.sync += stage.eq(value)
        value = stage
    return value


def token_line(m: Module, token: Value, length: int, name: str) -> list[Value]:
    """A one-bit token and its `length - 1` delayed copies: element i is high i cycles after the token."""
    line = [token]
    for index in range(1, length):
        line.append(delay_control(m, line[-1], 1, f"{name}{index}"))
    return line


def skewed(m: Module, values: Sequence[Any], name: str) -> list[Any]:
    """Value i delayed by i cycles."""
    return [delay_data(m, value, index, f"{name}{index}") for index, value in enumerate(values)]


def deskewed(m: Module, values: Sequence[Any], name: str) -> list[Any]:
    """Value i delayed by `len(values) - 1 - i` cycles: undoes `skewed`."""
    last = len(values) - 1
    return [delay_data(m, value, last - index, f"{name}{index}") for index, value in enumerate(values)]
