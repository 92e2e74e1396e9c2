"""Power of kernels under the board's limit: energy by class of work, static power, and the clock that fits.

Energies hold at the node's nominal clock; a design with a faster boost clock pays more for every operation (voltage).
At the boost clock a kernel would draw static power plus its dynamic energy over its time. Where that is above the limit
the clock is lowered: time limited by the SMs grows, their energy an operation falls with the voltage. DRAM keeps its
rate. Below the lowest clock of the voltage range the chip idles part of the time.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from typing import Any

import numpy as np
import yaml

from accelerators.gpu.estimate import Estimate
from accelerators.gpu.gemm_kernel import FloatArray
from accelerators.gpu.hardware import DTYPES, GpuHardware

_BISECTIONS = 30


@dataclass(frozen=True, eq=False)
class PowerEstimate:
    """Kernels at the clock that the power limit allows; arrays float64 (problems,).

    `seconds` at that clock, `clock_scale` over the boost clock, `energy_j` by component ("arithmetic", "l2", "dram",
    "static"), `power_w` their sum over the time: never above the limit.
    """

    seconds: FloatArray
    clock_scale: FloatArray
    energy_j: Mapping[str, FloatArray]
    power_w: FloatArray


def static_watts(hw: GpuHardware) -> float:
    """Power of the board that does nothing but wait."""
    return float(prices()["static"]["share_of_tdp"]["value"]) * hw.tdp_w


def under_power_limit(hw: GpuHardware, estimate: Estimate, dtype: str) -> PowerEstimate:
    """Slow kernels down to the board's power limit."""
    table = prices()
    scale = node_scale(hw.node_nm, table["node_energy"]["scale"]) * voltage_scale(hw)
    arithmetic = estimate.flops * flop_pj(hw, dtype) * voltage_scale(hw) * 1e-12
    l2 = estimate.l2_bytes * table["energy"]["l2_pj_byte"]["value"] * scale * 1e-12
    dram = estimate.dram_bytes * table["energy"][f"{hw.dram_standard}_pj_byte"]["value"] * 1e-12
    memory_s = np.minimum(estimate.seconds, estimate.dram_bytes / hw.dram_bytes_s)
    static, exponent = static_watts(hw), float(table["clock_exponent"]["value"])
    budget = hw.tdp_w - static

    def at(clock: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Time and dynamic energy at a clock: what DRAM does not limit stretches."""
        seconds = np.maximum(memory_s, estimate.seconds / clock)
        return seconds, (arithmetic + l2) * clock**exponent + dram

    low = np.full(estimate.seconds.shape, float(table["lowest_clock"]["value"]))
    high = np.ones_like(low)
    seconds, energy = at(high)
    fits = energy <= budget * seconds
    for _ in range(0 if fits.all() else _BISECTIONS):
        middle = (low + high) / 2
        seconds, energy = at(middle)
        under = energy <= budget * seconds
        low, high = np.where(under, middle, low), np.where(under, high, middle)
    clock = np.where(fits, 1.0, low)
    seconds, energy = at(clock)
    # at the lowest clock and still above: idle until the average keeps the limit
    seconds = np.maximum(seconds, energy / budget)
    parts = {
        "arithmetic": arithmetic * clock**exponent,
        "l2": l2 * clock**exponent,
        "dram": dram,
        "static": static * seconds,
    }
    return PowerEstimate(seconds, clock, parts, sum(parts.values(), np.zeros_like(seconds)) / seconds)


def voltage_scale(hw: GpuHardware) -> float:
    """Energy of an operation at the boost clock over that at the nominal one: a faster design needs more voltage."""
    table = prices()
    nominal = hw.nominal_clock_mhz or node_scale(hw.node_nm, table["nominal_clock"]["scale"])
    slowest = float(table["lowest_clock"]["value"])
    return float(max(hw.clock_mhz / nominal, slowest) ** float(table["clock_exponent"]["value"]))


def fastest_clock_mhz(hw: GpuHardware) -> float:
    """The fastest clock that the node's voltage range reaches."""
    table = prices()
    return node_scale(hw.node_nm, table["nominal_clock"]["scale"]) * float(table["fastest_clock"]["value"])


def flop_pj(hw: GpuHardware, dtype: str) -> float:
    """Energy of an operation in pJ: matrix units by operand width, SIMD lanes otherwise."""
    table = prices()
    scale = node_scale(hw.node_nm, table["node_energy"]["scale"])
    if hw.tensor_cores and DTYPES[dtype][2] != "fp32":
        # a multiplier's energy follows its operands' width: half at one byte, twice at tf32's four
        return float(table["energy"]["matrix_pj_flop"]["value"]) * scale * DTYPES[dtype][0] / 2
    lanes = hw.rates.fp32 / hw.operations_clk_sm(dtype)
    return float(table["energy"]["simd_pj_flop"]["value"]) * scale * min(1.0, lanes)


def node_scale(node_nm: float, table: Mapping[float, float]) -> float:
    """Interpolate a table by node on logarithms; beyond its ends the last value holds."""
    nodes = np.array(sorted(table))
    return float(np.exp(np.interp(np.log(node_nm), np.log(nodes), np.log([table[node] for node in nodes]))))


@cache
def prices() -> Mapping[str, Any]:
    """The price table, `data/prices.yaml`."""
    text = (resources.files("accelerators.gpu") / "data" / "prices.yaml").read_text(encoding="utf-8")
    table: Mapping[str, Any] = yaml.safe_load(text)
    return table
