"""Closed-form timing of the matmul engine: cycles of one MATMUL descriptor, from `start` to `done`.

Equal to the emitted RTL, descriptor by descriptor (tests/rtl/test_matmul_engine.py). The constants are the
stages a value passes, in order; nothing is fitted. The RTL takes `WS_MIN_FOLD_CYCLES` from here.

Weight stationary: a fold's weights ride in with its first pixel, one array row a cycle, so folds follow each
other at the rate of the slower of pixels and weight rows, and only the last fold's way out is seen.

Output stationary: every fold takes `rows` steps, whether its pixel block is full or not; a block's results
leave while the next block computes, and only the last block's way out is seen.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dse.program.tile.program import Machine

IntArray = npt.NDArray[np.int64]

#: From `start` to the first slot: counters load.
START_CYCLES = 1
#: From a slot to its address on the scratchpad port.
ADDRESS_CYCLES = 1
#: From a scratchpad address to its word (`dse.rtl.interfaces.READ_LATENCY`).
READ_CYCLES = 2
#: Registers a value passes inside a processing element: operands, product, sum.
PE_CYCLES = 3
#: An activation word is loaded into its row's shift register (output stationary only).
TRANSPOSE_CYCLES = 1
#: A finished sum moves to the drain register (output stationary only).
DRAIN_CYCLES = 1
#: Sum of result and accumulator; it is written in the cycle behind.
ACCUMULATE_CYCLES = 1
#: Folds of one block n update the same accumulator words, so a fold must not read a word before the fold
#: before it has written it: read, add and write.
WS_MIN_FOLD_CYCLES = READ_CYCLES + ACCUMULATE_CYCLES + 1


def matmul_cycles(
    n_blocks: npt.ArrayLike, folds_per_block: npt.ArrayLike, pixels: npt.ArrayLike, machine: Machine
) -> IntArray:
    """Cycles of MATMUL descriptors, from `start` to `done`.

    Parameters
    ----------
    n_blocks, folds_per_block, pixels : integers, shapes that broadcast
        Descriptor fields `n_blocks`, `n_rows * n_columns * n_channels` and `height * width`; >= 1.
    machine
        Gives rows, columns and dataflow.

    Returns
    -------
    int64, the broadcast shape: cycles.

    Raises
    ------
    ValueError: a count is below 1, or the dataflow is neither "ws" nor "os".
    """
    blocks, folds, pixels = (np.asarray(value, dtype=np.int64) for value in (n_blocks, folds_per_block, pixels))
    for name, value in (("n_blocks", blocks), ("folds_per_block", folds), ("pixels", pixels)):
        if value.size and int(value.min()) < 1:
            raise ValueError(f"{name} is {int(value.min())}, but a MATMUL has at least 1")
    rows, columns = machine.rows, machine.columns
    front = START_CYCLES + ADDRESS_CYCLES + READ_CYCLES + PE_CYCLES + ACCUMULATE_CYCLES
    if machine.dataflow == "ws":
        skew = (rows - 1) + (columns - 1)
        fold = np.maximum(pixels, max(rows, WS_MIN_FOLD_CYCLES))
        return np.asarray((blocks * folds - 1) * fold + (pixels - 1) + front + skew, dtype=np.int64)
    if machine.dataflow == "os":
        skew = (rows - 1) + (columns - 1)
        steps = blocks * folds * -(-pixels // rows) * rows
        way_out = TRANSPOSE_CYCLES + DRAIN_CYCLES + skew + (rows - 1)
        return np.asarray((steps - 1) + front + way_out, dtype=np.int64)
    raise ValueError(f"{machine.dataflow!r} is not a dataflow of the systolic family; one of ('ws', 'os')")
