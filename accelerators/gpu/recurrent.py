"""LSTM, GRU and plain RNN layers on a GPU: one fused GEMM a step, a kernel for every gate, or weights kept on chip.

Standard (Appleyard et al., arXiv 1604.01946): the gates' recurrent GEMMs are one (gates x hidden, batch, hidden) GEMM
a time step; the input GEMM runs once over all steps; pointwise work is fused. Layers run as a wavefront: layer l works
on step t while layer l - 1 works on step t + 1. Persistent (Diamos et al., ICML 2016): the recurrent weights stay in
registers and shared memory, and a grid-wide barrier ends a step. Unfused is what a framework does without cuDNN.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from accelerators.gpu.constants import constants
from accelerators.gpu.estimate import Estimate
from accelerators.gpu.gemm import gemm
from accelerators.gpu.gemm_kernel import BoolArray, FloatArray, IntArray
from accelerators.gpu.hardware import DTYPES, GpuHardware
from dse.core.errors import UsageError, nearest

Mode = Literal["standard", "persistent", "unfused"]
Direction = Literal["forward", "backward_data", "backward_weights"]
#: Recurrent weight matrices of a cell.
GATES: Mapping[str, int] = {"lstm": 4, "gru": 3, "rnn": 1}
#: Pointwise kernels of a step when nothing is fused: sum, bias and activation of every gate, then the state's update.
POINTWISE: Mapping[str, int] = {"lstm": 17, "gru": 14, "rnn": 3}
#: Share of registers and shared memory that persistent weights may take; the rest is the kernel's own (M: from memory).
PERSISTENT_SHARE = 0.7


@dataclass(frozen=True, eq=False)
class RecurrentProblems:
    """Layers of one cell kind as arrays, each int64 (problems,).

    `inputs` is the width of the first layer's input, 0 when it is given already multiplied (cuDNN's skip mode);
    upper layers take `hidden`.
    """

    hidden: IntArray
    batch: IntArray
    steps: IntArray
    inputs: IntArray
    layers: IntArray


def recurrent(
    hw: GpuHardware,
    problems: RecurrentProblems,
    *,
    cell: str = "lstm",
    dtype: str = "fp16",
    mode: Mode = "standard",
    training: bool = False,
    direction: Direction = "forward",
    values: Mapping[str, float] | None = None,
) -> Estimate:
    """Time of whole layers, all steps: seconds without the launch of the first kernel.

    `training` stores gates for the backward pass and takes the constants of class "rnn_train".

    Raises
    ------
    UsageError: unknown cell; "persistent" for weights that do not fit on chip.
    """
    if cell not in GATES:
        raise UsageError(f"{cell!r} is not a recurrent cell{nearest(cell, GATES)}")
    held = constants(hw, "rnn_train" if training else "rnn", dtype) if values is None else values
    if direction == "backward_weights":
        return _weight_gradient(hw, problems, cell, dtype, held)
    if mode == "persistent":
        require_persistent(hw, problems, cell, dtype)
        step = _persistent_step(hw, problems, cell, dtype, held)
    elif mode == "unfused":
        step = _unfused_step(hw, problems, cell, dtype, held)
    else:
        step = _fused_step(hw, problems, cell, dtype, held, training, direction)
    return _layers(hw, problems, cell, dtype, held, step, mode)


def persistent_fits(hw: GpuHardware, problems: RecurrentProblems, cell: str, dtype: str) -> BoolArray:
    """Whether the recurrent weights of one layer fit on chip: bool (problems,)."""
    weights = GATES[cell] * problems.hidden.astype(float) ** 2 * DTYPES[dtype][0]
    fits: BoolArray = weights <= PERSISTENT_SHARE * hw.sms * (hw.register_kib + hw.shared_kib) * 1024
    return fits


def require_persistent(hw: GpuHardware, problems: RecurrentProblems, cell: str, dtype: str) -> None:
    """Refuse persistent layers whose weights do not fit.

    Raises
    ------
    UsageError: names the first hidden size that is too large and the largest that fits.
    """
    fits = persistent_fits(hw, problems, cell, dtype)
    if not fits.all():
        room = PERSISTENT_SHARE * hw.sms * (hw.register_kib + hw.shared_kib) * 1024
        largest = int((room / (GATES[cell] * DTYPES[dtype][0])) ** 0.5)
        raise UsageError(
            f"persistent {cell} of hidden size {int(problems.hidden[~fits][0])} in {dtype} does not fit on chip; "
            f"up to {largest} does"
        )


def _fused_step(
    hw: GpuHardware,
    p: RecurrentProblems,
    cell: str,
    dtype: str,
    held: Mapping[str, float],
    training: bool,
    direction: Direction,
) -> Estimate:
    """One step: a GEMM over all gates, whose weights are warm in L2 when they fit, and fused pointwise work."""
    gates, element = GATES[cell], DTYPES[dtype][0]
    wide, deep = gates * p.hidden, p.hidden
    if direction == "backward_data":
        wide, deep = deep, wide
    core = gemm(hw, wide, p.batch, deep, dtype=dtype, l2_hot=True, kernel="rnn", values=held)
    # gates are written for the backward pass, or read in it
    stored = p.batch * p.hidden * float((gates + 2) if training else 2) * element
    seconds = core.seconds + held["step_us"] * 1e-6 + stored / (hw.dram_bytes_s * held["dram_efficiency"])
    return Estimate(seconds, core.flops, core.dram_bytes + stored, core.l2_bytes + stored, core.bound_s,
                    core.launches + 1)  # fmt: skip


def _unfused_step(hw: GpuHardware, p: RecurrentProblems, cell: str, dtype: str, held: Mapping[str, float]) -> Estimate:
    """One step with a kernel for each gate's input and recurrent GEMM and for every pointwise op."""
    gates, element = GATES[cell], DTYPES[dtype][0]
    core = gemm(hw, p.hidden, p.batch, p.hidden, dtype=dtype, l2_hot=True, kernel="rnn", values=held)
    pointwise = POINTWISE[cell]
    moved = 3.0 * p.batch * p.hidden * element * pointwise
    kernels = 2.0 * gates + pointwise
    fetch = moved / (hw.l2_gb_s * 1e9 * held["l2_efficiency"])
    seconds = core.seconds * 2 * gates + fetch + kernels * held["gap_us"] * 1e-6
    return Estimate(seconds, core.flops * 2 * gates, core.dram_bytes * 2 * gates, core.l2_bytes * 2 * gates + moved,
                    core.bound_s * 2 * gates, np.broadcast_to(kernels, seconds.shape))  # fmt: skip


def _persistent_step(
    hw: GpuHardware, p: RecurrentProblems, cell: str, dtype: str, held: Mapping[str, float]
) -> Estimate:
    """One step with weights on chip: arithmetic, the hidden state to every SM through L2, and a grid-wide barrier."""
    gates, element = GATES[cell], DTYPES[dtype][0]
    hidden, batch = p.hidden.astype(np.float64), p.batch.astype(np.float64)
    flops = 2.0 * gates * hidden * hidden * batch
    arithmetic = flops / (hw.peak_flop_s(dtype) * held["peak_efficiency"])
    state = batch * hidden * element
    hop = state / (hw.l2_gb_s * 1e9 * held["l2_efficiency"])
    # every SM must hear the whole state: beyond some number, further ones cost more than they compute
    least = gates * hidden**2 * element / (PERSISTENT_SHARE * (hw.register_kib + hw.shared_kib) * 1024)
    used = np.clip(np.sqrt(arithmetic * hw.sms / hop), np.minimum(least, hw.sms), hw.sms)
    seconds = arithmetic * hw.sms / used + hop * used + held["sync_us"] * 1e-6
    bound: FloatArray = flops / hw.peak_flop_s(dtype)
    return Estimate(seconds, flops, np.zeros_like(flops), state * used, bound, np.zeros_like(flops))


def _layers(
    hw: GpuHardware,
    p: RecurrentProblems,
    cell: str,
    dtype: str,
    held: Mapping[str, float],
    step: Estimate,
    mode: Mode,
) -> Estimate:
    """All steps of all layers as a wavefront, and the input GEMM of a layer over all its steps at once."""
    passes = p.steps + p.layers - 1.0
    work = 1.0 * p.steps * p.layers
    # in one wavefront column layers share the machine: no faster than their work at the roofline
    total = np.maximum(passes * step.seconds, work * step.bound_s)
    if mode == "unfused":
        total = work * step.seconds
    apart = mode != "unfused" and bool((p.inputs > 0).any() or (p.layers > 1).any())
    inputs = _input_gemms(hw, p, cell, dtype, held) if apart else _nothing(step)
    return Estimate(
        seconds=total + inputs.seconds + held["call_us"] * 1e-6,
        flops=step.flops * work + inputs.flops,
        dram_bytes=step.dram_bytes * work + inputs.dram_bytes,
        l2_bytes=step.l2_bytes * work + inputs.l2_bytes,
        bound_s=step.bound_s * work + inputs.bound_s,
        launches=step.launches * work + inputs.launches,
        algorithm=(mode,) * total.size,
    )


def _input_gemms(hw: GpuHardware, p: RecurrentProblems, cell: str, dtype: str, held: Mapping[str, float]) -> Estimate:
    gates = GATES[cell]
    first = gemm(hw, gates * p.hidden, p.batch * p.steps, np.maximum(p.inputs, 1), dtype=dtype, values=held)
    upper = gemm(hw, gates * p.hidden, p.batch * p.steps, p.hidden, dtype=dtype, values=held)
    present, above = (p.inputs > 0) * 1.0, p.layers - 1.0

    def both(name: str) -> FloatArray:
        total: FloatArray = getattr(first, name) * present + getattr(upper, name) * above
        return total

    return Estimate(both("seconds"), both("flops"), both("dram_bytes"), both("l2_bytes"), both("bound_s"),
                    both("launches"))  # fmt: skip


def _nothing(step: Estimate) -> Estimate:
    zero = np.zeros_like(step.seconds)
    return Estimate(zero, zero, zero, zero, zero, zero)


def _weight_gradient(
    hw: GpuHardware, p: RecurrentProblems, cell: str, dtype: str, held: Mapping[str, float]
) -> Estimate:
    """The recurrent weights' gradient: one GEMM over all steps."""
    core = gemm(hw, GATES[cell] * p.hidden, p.hidden, p.batch * p.steps, dtype=dtype, kernel="rnn", values=held)
    return Estimate(core.seconds + held["call_us"] * 1e-6, core.flops, core.dram_bytes, core.l2_bytes, core.bound_s,
                    core.launches, ("weight_gradient",) * core.seconds.size)  # fmt: skip
