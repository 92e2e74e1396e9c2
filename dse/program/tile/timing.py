"""Cycles of a tile machine outside its compute engines: DMA transfers and the sequencing of descriptors.

A cycle is one clock period. `start` of the machine is high in cycle 0; a task starts in the cycle s in which
its engine sees `start` and ends in the cycle e in which the engine raises `done`; its duration is e - s. Then

    s     = max(e of the task before it in the queue + ISSUE_CYCLES + LOOP_CYCLES * LOOPs fetched in between,
                e of every awaited signal + 1)
    total = max over queues(e of the last task + FINAL_CYCLES)

where cycle 0 stands for the e before a queue's first task, so an empty queue reports at FINAL_CYCLES.

Source of every number here: the structure of `dse.rtl`, equal to it cycle for cycle
(tests/rtl/test_sequencer.py, tests/rtl/test_dma.py, tests/rtl/test_machine.py).
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dse.program.tile.program import Machine

IntArray = npt.NDArray[np.int64]

#: From a task's end to the earliest start of the next. The eight words of the descriptor stream in during
#: cycles 0 to 7; the multiplier takes one of the 3 operands x 4 loop levels a cycle from cycle 4 to 15; the last
#: product is there in 17, added up in 18.
ISSUE_CYCLES = 18

#: From cycle 0 to the earliest start of a queue's first task: the machine's start acts as a task's end.
FIRST_ISSUE_CYCLES = ISSUE_CYCLES

#: Added by every LOOP descriptor fetched between two tasks: word 0, word 1 (count, body), push, fetch again.
LOOP_CYCLES = 4

#: Duration of a SYNC: it passes its semaphores in one cycle and signals in the next.
SYNC_CYCLES = 1

#: From the end of a queue's last task until the queue reports that it has seen HALT.
FINAL_CYCLES = 2

#: LOAD, besides one cycle a beat and the memory's latency: the register between memory port and scratchpad.
LOAD_PIPELINE_CYCLES = 1

#: STORE, besides one cycle a beat and the memory's latency: two cycles of scratchpad read, the FIFO in front
#: of the port and the register behind the acknowledgement.
STORE_PIPELINE_CYCLES = 4


def beats_per_run(run_bytes: IntArray | int, machine: Machine) -> IntArray:
    """Beats of the memory port that a run of `run_bytes` bytes (> 0) takes: int64, shape of `run_bytes`."""
    return -(-np.asarray(run_bytes, dtype=np.int64) // machine.memory_bytes_per_cycle)


def load_cycles(runs: IntArray | int, beats: IntArray | int, machine: Machine) -> IntArray:
    """Cycles from start to end of LOADs on a memory port that is always ready.

    Parameters
    ----------
    runs : int64, shape (tasks,)
        Runs of each LOAD: n0 * n1 * n2 of its descriptor.
    beats : int64, shape (tasks,)
        Beats of one run, see `beats_per_run`.
    machine
        Gives the latency of the memory in cycles.

    Returns
    -------
    int64, shape (tasks,): cycles. One beat is requested a cycle; the last one's data arrives
    `memory_latency_cycles` after its request and is written a cycle later.
    """
    requests = np.asarray(runs, dtype=np.int64) * np.asarray(beats, dtype=np.int64)
    return requests + (machine.memory_latency_cycles + LOAD_PIPELINE_CYCLES)


def store_cycles(runs: IntArray | int, beats: IntArray | int, machine: Machine) -> IntArray:
    """Cycles from start to end of STOREs on a memory port that is always ready; arguments as `load_cycles`.

    A STORE ends after its last beat is acknowledged, so whatever it signals may read what it wrote.
    """
    sent = np.asarray(runs, dtype=np.int64) * np.asarray(beats, dtype=np.int64)
    return sent + (machine.memory_latency_cycles + STORE_PIPELINE_CYCLES)
