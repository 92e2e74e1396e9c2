"""Where a kernel's cycles went that did no useful multiplication, by cause."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from accelerators.gpu.estimate import GRID
from accelerators.gpu.gemm_kernel import TERMS, FloatArray, IntArray
from accelerators.gpu.hardware import GpuHardware
from accelerators.gpu.timing import KernelTimes

#: padding: tiles over the edge, channels filled up. idle_sms: SMs without a thread block in the last wave. issue:
#: arithmetic below its peak (too few warps, sustained rate). fill_drain: prologue and epilogue of thread blocks.
#: split_k: adding partial sums. fused: what transforms and fused ops move. memory_stall: everything else at the boost
#: clock: waiting for DRAM, L2, shared memory or, in recurrent layers, for the step before. power_cap: cycles lost by a
#: clock below boost. launch: device and host time around the kernel.
LOSSES = ("padding", "idle_sms", "issue", "fill_drain", "split_k", "fused", "memory_stall", "power_cap", "launch")
_TERM = {name: index for index, name in enumerate(TERMS)}
_GRID = {name: index for index, name in enumerate(GRID)}


def losses_of(
    hw: GpuHardware, times: KernelTimes, useful: IntArray, executed: IntArray, cycles: IntArray, peak: float
) -> list[Mapping[str, float]]:
    """Losses of every kernel in cycles at the boost clock; with the useful cycles they sum up to `cycles` exactly."""
    clock = hw.clock_hz
    arithmetic = executed / peak
    blocks = np.maximum(times.grid[:, _GRID["blocks"]], 1.0)
    busiest = np.ceil(blocks / hw.sms) * hw.sms / blocks
    math = times.terms[:, _TERM["math"]] * clock
    idle = np.minimum(np.maximum(math - arithmetic, 0.0), arithmetic * (busiest - 1.0))
    wanted = {
        "padding": arithmetic - useful / peak,
        "idle_sms": idle,
        "issue": math - arithmetic - idle,
        "fill_drain": times.terms[:, _TERM["fill"]] * clock,
        "split_k": times.terms[:, _TERM["reduce"]] * clock,
        "fused": times.stage_s * clock,
    }
    left = np.maximum(times.core_s * clock - useful / peak, 0.0)
    found: dict[str, FloatArray] = {}
    for name, lost in wanted.items():
        # resources overlap, so that no cause takes more than is left of the kernel
        found[name] = np.minimum(np.maximum(lost, 0.0), left)
        left = left - found[name]
    found["memory_stall"] = left
    found["power_cap"] = np.maximum(times.kernel_s - times.core_s, 0.0) * clock
    spent = useful / peak + np.sum([found[name] for name in found], axis=0)
    found["launch"] = np.maximum(cycles - spent, 0.0)
    # rounding to whole cycles may leave less than was spent
    found["memory_stall"] = found["memory_stall"] + np.minimum(cycles - spent, 0.0)
    return [
        {name: float(found[name][index]) for name in LOSSES if found[name][index] > 0} for index in range(len(cycles))
    ]
