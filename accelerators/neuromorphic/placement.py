"""Where on the mesh the slices of a plan lie.

* ``order``: slice i on core i, tiles column by column.
* ``row_major``: along the rows of the mesh, from north to south.
* ``spread``: evenly over all cores, so that neighbours of one layer do not share a link.
* ``hilbert``: along a Hilbert curve, so that slices of near numbers lie near each other.
* ``traffic``: simulated annealing of messages times hops, from the Hilbert curve, seeded.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import numpy.typing as npt

from accelerators.neuromorphic.blocks import BlockPlan
from accelerators.neuromorphic.hardware import NeuromorphicHardware
from accelerators.neuromorphic.recost import Recoster
from accelerators.neuromorphic.recost_kernels import annealed

Ints = npt.NDArray[np.int64]
PLACEMENTS = ("order", "row_major", "spread", "hilbert", "traffic")
#: Swaps tried for each slice and spot by `traffic`.
_SWAPS = 60


def place_plan(plan: BlockPlan, placement: str, recoster: Recoster) -> BlockPlan:
    """The plan with its slices on cores by one of `PLACEMENTS`."""
    hw = recoster.hw
    if placement == "order":
        return replace(plan, places=())
    if placement == "spread":
        return replace(plan, places=tuple(int(core) for core in np.arange(plan.cores) * hw.cores // plan.cores))
    if placement == "traffic":
        return replace(plan, places=_by_traffic(plan, recoster))
    cores = _row_major(hw) if placement == "row_major" else _hilbert(hw)
    return replace(plan, places=tuple(cores[: plan.cores]))


def _row_major(hw: NeuromorphicHardware) -> list[int]:
    return sorted(range(hw.cores), key=lambda core: (hw.place(core)[1], hw.place(core)[0], core))


def _hilbert(hw: NeuromorphicHardware) -> list[int]:
    """Cores in the order of a Hilbert curve over the smallest square of a power of two around the mesh."""
    side = 1 << (max(hw.mesh_columns, hw.mesh_rows) - 1).bit_length()
    return sorted(range(hw.cores), key=lambda core: (hilbert_index(side, *hw.place(core)), core))


def hilbert_index(side: int, x: int, y: int) -> int:
    """Place of (x, y) along the Hilbert curve over a square whose side is a power of two.

    Source: the recursion of D. Hilbert 1891, quadrant by quadrant.
    """
    index, half = 0, side // 2
    while half:
        right, low = int(x & half > 0), int(y & half > 0)
        index += half * half * ((3 * right) ^ low)
        if not low:
            if right:
                x, y = side - 1 - x, side - 1 - y
            x, y = y, x
        half //= 2
    return index


def _by_traffic(plan: BlockPlan, recoster: Recoster) -> tuple[int, ...]:
    """Cores by annealing; all cores take part, so that slices may move to free ones."""
    hw = recoster.hw
    one_way = recoster.traffic(plan)
    start = _hilbert(hw)
    spots = np.array([hw.place(core) for core in start], np.int64).reshape(-1, 2)
    place = np.full(hw.cores, -1, np.int64)
    place[: plan.cores] = np.arange(plan.cores)
    annealed(one_way + one_way.T, spots, place, _SWAPS * (plan.cores + hw.cores), 0)
    cores = np.zeros(plan.cores, np.int64)
    for spot in np.flatnonzero(place >= 0):
        cores[place[spot]] = start[spot]
    return tuple(int(core) for core in cores)
