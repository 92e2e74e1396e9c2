"""Closed-form timing of the vector engine: a group of `vector_lanes` channels a cycle, then a pipeline drains.

The constants are the stages a group passes, in order; the sum of a mode's stages is the engine's latency.
Equal to the emitted RTL, descriptor by descriptor (tests/rtl/test_vector.py).
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from dse.program.tile.program import Machine

IntArray = npt.NDArray[np.int64]

#: From `start` to the first scratchpad read: counters load.
VECTOR_START_CYCLES = 1
#: From a scratchpad read to its data.
VECTOR_READ_CYCLES = 2
#: Selecting the lanes of one group out of an accumulator row.
VECTOR_SELECT_CYCLES = 1
#: From accumulator to int8, per requantization mode.
REQUANTIZE_CYCLES: Mapping[str, int] = {"q31": 9, "ort": 15}
#: The residual adder behind the requantizer; only `q31` has one, and values pass it whether they add or not.
RESIDUAL_ADD_CYCLES: Mapping[str, int] = {"q31": 9, "ort": 0}


def vector_latency(mode: str) -> int:
    """Cycles from `start` to the cycle that writes the first group, for a requantization mode.

    Raises
    ------
    ValueError: the mode is unknown.
    """
    if mode not in REQUANTIZE_CYCLES:
        raise ValueError(f"{mode!r} is not a requantization mode; one of {tuple(REQUANTIZE_CYCLES)}")
    front = VECTOR_START_CYCLES + VECTOR_READ_CYCLES + VECTOR_SELECT_CYCLES
    return front + REQUANTIZE_CYCLES[mode] + RESIDUAL_ADD_CYCLES[mode]


def vector_cycles(n_blocks: npt.ArrayLike, rows_count: npt.ArrayLike, machine: Machine) -> IntArray:
    """Cycles of VECTOR descriptors, from `start` to `done`.

    Parameters
    ----------
    n_blocks, rows_count : integers, shapes that broadcast
        Descriptor fields; >= 1.
    machine
        Gives columns, vector lanes and requantization mode.

    Returns
    -------
    int64, the broadcast shape: cycles.

    Raises
    ------
    ValueError: a count is below 1.
    """
    blocks, rows = np.asarray(n_blocks, np.int64), np.asarray(rows_count, np.int64)
    if (blocks < 1).any() or (rows < 1).any():
        raise ValueError("a VECTOR descriptor needs n_blocks and rows_count of at least 1")
    groups = blocks * rows * (machine.columns // machine.vector_lanes)
    return np.asarray(groups - 1 + vector_latency(machine.requantize), np.int64)
