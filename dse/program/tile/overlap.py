"""Whether two descriptors really meet in the activation scratchpad, word by word.

Results that one layer forwards to the next lie interleaved: the channels of a block are every few words of a pixel.
Two blocks then overlap as intervals without a word in common, so intervals alone would see races that are none.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from dse.program.tile.isa import Descriptor, Opcode
from dse.program.tile.program import Machine

IntArray = npt.NDArray[np.int64]


class ActivationWords:
    """Answers for pairs of descriptors of one step; equal pairs at equal distance are worked out once."""

    def __init__(self, machine: Machine) -> None:
        self._machine = machine
        self._offsets: dict[int, tuple[Descriptor, IntArray]] = {}
        self._known: dict[tuple[int, int, int], bool] = {}

    def shared(self, one: Descriptor, one_base: int, other: Descriptor, other_base: int) -> bool:
        """Whether some word belongs to both, each at its effective base address (words).

        Parameters
        ----------
        one, other
            LOAD (into the activation scratchpad), MATMUL or FORWARD; for others the answer is True.
        """
        key = (id(one), id(other), one_base - other_base)
        if key not in self._known:
            sides = [self._words(one), self._words(other)]
            if any(side.size == 0 for side in sides):
                return True
            self._known[key] = bool(np.isin(sides[0] + (one_base - other_base), sides[1]).any())
        return self._known[key]

    def _words(self, d: Descriptor) -> IntArray:
        # the descriptor is kept, so that its id stays its own
        if id(d) not in self._offsets:
            self._offsets[id(d)] = (d, activation_offsets(d, self._machine))
        return self._offsets[id(d)][1]


def activation_offsets(d: Descriptor, machine: Machine) -> IntArray:
    """Words that a descriptor touches in the activation scratchpad, relative to its base, each once and ascending."""
    if d.op == Opcode.LOAD:
        axes = [(d[f"n{i}"], d[f"local_stride{i}"]) for i in range(3)]
    elif d.op == Opcode.MATMUL:
        names = {"n": "n_blocks", "r": "n_rows", "s": "n_columns", "y": "height", "x": "width"}
        axes = [(d[count], d[f"a_stride_{dim}"]) for dim, count in names.items()] + [(d["n_channels"], 1)]
    elif d.op == Opcode.FORWARD:
        words = -(-d["n_blocks"] * machine.columns // machine.rows)
        axes = [(d["height"], d["out_stride_y"]), (d["width"], d["out_stride_x"]), (words, 1)]
    else:
        return np.zeros(0, np.int64)
    offsets = np.zeros(1, np.int64)
    for count, stride in axes:
        if stride:
            offsets = np.unique(offsets[:, None] + stride * np.arange(count)[None, :])
    return offsets
