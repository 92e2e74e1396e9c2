"""Vela's decision to copy weights to the staging memory, whole or in slices of output channels."""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass, replace

from dse.peers.vela.blocks import SPLIT_DEPTH, Block
from dse.peers.vela.cycles import Placement, operation_cycles
from dse.peers.vela.hardware import Memory, Npu, System
from dse.peers.vela.operation import VelaOperation, round_up
from dse.peers.vela.transfers import accesses

#: A wait at the start of a network that is always taken for the sake of buffering.
STARTUP_CYCLES = 1000
#: Bytes to which encoded slices are padded.
SLICE_ALIGNMENT = 16
#: Slices that use a smaller share of the block's depth waste the array.
LEAST_DEPTH_SHARE = 0.3


@dataclass(frozen=True)
class Buffered:
    """What was decided: bounds of the slices of output channels (empty: weights are read where they lie).

    `before`: the first slice is copied under the previous operation. `last_slice_cycles`: cycles under which the
    next operation may copy its own.
    """

    slices: tuple[int, ...]
    slice_bytes: tuple[int, ...]
    before: bool
    last_slice_cycles: int

    def placement(self, placement: Placement, system: System) -> Placement:
        """Memories with the weights where the NPU reads them."""
        return replace(placement, weights=system.staging) if self.slices else placement


@dataclass(frozen=True)
class _Run:
    """Cycles of an operation in slices: of the NPU, with waits for weights, of reading them, of the last slice."""

    run: int
    full: int
    visible: int
    weight_reads: int
    last: int


def plan_buffering(
    operation: VelaOperation,
    npu: Npu,
    system: System,
    block: Block,
    placement: Placement,
    slack_cycles: int,
    free_bytes: int,
    *,
    first: bool,
) -> Buffered:
    """Decide for one operation.

    Parameters
    ----------
    slack_cycles
        Cycles of the operation before, under which weights may be copied.
    free_bytes
        Staging memory that feature maps leave.
    first
        Whether nothing runs before.
    """
    alone = operation_cycles(operation, npu, block, placement)
    unbuffered = Buffered((), (), False, alone)
    if operation.weights is None or system.constants is system.staging:
        return unbuffered
    plan = _Plan(operation, operation.weights.bytes, npu, system, block, placement, slack_cycles, free_bytes, first)
    return plan.decide() or unbuffered


@dataclass(frozen=True)
class _Plan:
    operation: VelaOperation
    weight_bytes: int
    npu: Npu
    system: System
    block: Block
    placement: Placement
    slack: int
    free_bytes: int
    first: bool

    def decide(self) -> Buffered | None:
        depth = self.operation.ofm.channels
        fetches = accesses(self.operation, self.block).weight_fetches
        in_place = self._read(self.system.constants, self.weight_bytes) * fetches
        staged = self._read(self.system.staging, self.weight_bytes) * fetches
        if staged >= in_place:
            return None
        transfer = self._copy(self.weight_bytes)
        smallest = int(transfer * min(depth, SPLIT_DEPTH) / depth)
        forced = self.first and fetches > 1 and (smallest < in_place / 10 or smallest <= STARTUP_CYCLES)
        reference = self._sliced((0, depth), 0, double=False, staged=False)
        dominated = reference.run > in_place
        if not (
            forced
            or staged + max(transfer - self.slack, 0) < in_place
            or depth // self.block.ofm[2] > 2
            or (not self.first and smallest < self.slack and fetches > 1)
        ):
            return None
        slices = self._slices(depth, transfer, dominated)
        if len(slices) > 3:
            middle = slices[2] - slices[1]
            if dominated and middle / round_up(middle, self.block.ofm[2]) < LEAST_DEPTH_SHARE:
                return None
        sizes = self._sizes(slices)
        double = self._double(sizes)
        if double is None:
            return None
        early = not self.first and sizes[0] < self.free_bytes
        usable = self.slack if early else (STARTUP_CYCLES if forced else 0)
        run = self._sliced(slices, usable, double=double, staged=True)
        if not self._pays(run, reference, len(slices) - 1, transfer, fetches, dominated, forced):
            return None
        return Buffered(slices, sizes, early, run.last)

    def _pays(
        self, run: _Run, reference: _Run, slices: int, transfer: int, fetches: int, dominated: bool, forced: bool
    ) -> bool:
        """Whether the copy looks the same or better than reading in place."""
        reads = self._ifm_reads()
        before = max(reference.run, reference.weight_reads, reads)
        after = max(run.full, run.weight_reads, reads)
        if dominated:
            if run.visible // slices < STARTUP_CYCLES:
                after -= run.visible
            if slices > 1 and run.full == after and forced:
                after -= slices * (STARTUP_CYCLES // 2)
        return not (before < after or (fetches == 1 and transfer + run.weight_reads > before))

    def _slices(self, depth: int, transfer: int, dominated: bool) -> tuple[int, ...]:
        """Bounds of the slices: the first as deep as can be copied early, the others as compute hides."""
        half = self.free_bytes // 2
        least = min(SPLIT_DEPTH / depth, 1.0)
        ratio = min(self.slack / transfer, 1.0)
        aligned = math.floor(ratio / least) * least
        if 1.0 - aligned < least / 2:
            ratio = 1.0
        if dominated and 0.5 < ratio < 1.0:
            ratio = min(max(round_up(math.floor(depth * 0.5), SPLIT_DEPTH) / depth, 0.5), 1.0)
        ratio = min(max(ratio, least), min(half / self.weight_bytes, 1.0))
        if ratio >= 1.0:
            return (0, depth)
        before = max(int(depth * ratio) // SPLIT_DEPTH * SPLIT_DEPTH, SPLIT_DEPTH)
        if before >= depth:
            return (0, depth)
        return self._split(depth, before, transfer, half)

    def _split(self, depth: int, before: int, transfer: int, half: int) -> tuple[int, ...]:
        """Slices behind a first one of `before` channels, shrunk until two of them fit."""
        granule = self.block.ofm[2]
        staged = replace(self.placement, weights=self.system.staging)
        under = operation_cycles(self.operation, self.npu, self.block, staged, depth=before, first=True, last=False)
        each = round_up(max(depth * under // transfer, SPLIT_DEPTH), granule)
        if int(each / depth * self.weight_bytes) > half:
            each = int(half / self.weight_bytes * depth)
        while True:
            step = granule if each > granule else SPLIT_DEPTH
            each = max(each // step * step, SPLIT_DEPTH)
            bounds = (0, *range(before, depth, each), depth)
            fits = max(self._sizes(bounds)) <= half
            if fits or (before == SPLIT_DEPTH and each == SPLIT_DEPTH):
                return bounds
            if each > before:
                each = round_up(each // 2, SPLIT_DEPTH)
            else:
                before = round_up(before // 2, SPLIT_DEPTH)

    def _sizes(self, bounds: tuple[int, ...]) -> tuple[int, ...]:
        """Bytes of every slice, in proportion to its depth."""
        depth = bounds[-1]
        return tuple(
            round_up(math.ceil(self.weight_bytes * (end - start) / depth), SLICE_ALIGNMENT)
            for start, end in itertools.pairwise(bounds)
        )

    def _double(self, sizes: tuple[int, ...]) -> bool | None:
        """Whether slices alternate between two buffers; None when not even one fits."""
        if len(sizes) > 1 and max(sizes[::2]) + max(sizes[1::2]) <= self.free_bytes:
            return True
        return False if min(max(sizes), self.weight_bytes) <= self.free_bytes else None

    def _sliced(self, bounds: tuple[int, ...], slack: int, *, double: bool, staged: bool) -> _Run:
        """The operation slice by slice; `staged` weights are copied under the slice before."""
        sizes = self._sizes(bounds)
        placement = replace(self.placement, weights=self.system.staging) if staged else self.placement
        run = visible = last = reads = fetches = 0
        for index, (start, end) in enumerate(itertools.pairwise(bounds)):
            last = operation_cycles(
                self.operation, self.npu, self.block, placement,
                depth=end - start, first=index == 0, last=index == len(sizes) - 1,
            )  # fmt: skip
            if staged:
                visible += max(0, self._copy(sizes[index]) - slack)
            count = accesses(self.operation, self.block, depth=end - start).weight_fetches
            reads += sizes[index] * count
            fetches += count
            run += last
            slack = last if double else 0
        memory = self.system.staging if staged else self.system.constants
        return _Run(run, run + visible, visible, self._read(memory, reads / fetches) * fetches, last)

    def _ifm_reads(self) -> int:
        count = accesses(self.operation, self.block)
        return self._read(self.placement.ifm, count.ifm * self.operation.ifm.bits // 8)

    def _read(self, memory: Memory, size: float) -> int:
        return int(size / memory.bytes_per_cycle(self.npu) + memory.read_latency_cycles)

    def _copy(self, size: int) -> int:
        source, target = self.system.constants, self.system.staging
        return max(
            int(size / source.bytes_per_cycle(self.npu)) + source.read_latency_cycles,
            int(size / target.bytes_per_cycle(self.npu)) + target.write_latency_cycles,
        )
