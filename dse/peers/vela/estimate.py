"""Cycles of a network: operation after operation, the NPU or the slowest memory."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from dse.peers.vela.blocks import Block, best_block
from dse.peers.vela.buffering import Buffered, plan_buffering
from dse.peers.vela.cycles import Placement, operation_cycles
from dse.peers.vela.hardware import Memory, Npu, System
from dse.peers.vela.operation import FeatureMap, VelaOperation
from dse.peers.vela.transfers import accesses, burst_bytes


@dataclass(frozen=True)
class OperationEstimate:
    """An operation: cycles of the NPU with its waiting for weights, and of each memory by name."""

    name: str
    npu_cycles: int
    memory_cycles: dict[str, int]
    block: Block

    @property
    def cycles(self) -> int:
        return max(self.npu_cycles, *self.memory_cycles.values())


@dataclass(frozen=True)
class NetworkEstimate:
    """All operations of a network, one after the other."""

    operations: tuple[OperationEstimate, ...]

    @property
    def cycles(self) -> int:
        return sum(operation.cycles for operation in self.operations)


def estimate(operations: Sequence[VelaOperation], npu: Npu, system: System) -> NetworkEstimate:
    """What Vela prints for a network.

    Raises
    ------
    UsageError: an operation for which no block of outputs fits the buffer.
    """
    found: list[OperationEstimate] = []
    slack_cycles = 0
    live = _live_bytes(operations)
    for index, operation in enumerate(operations):
        block = best_block(operation, npu)
        placement = place(operation, system, live[index])
        free = max(0, system.staging_bytes - live[index])
        buffered = plan_buffering(operation, npu, system, block, placement, slack_cycles, free, first=index == 0)
        found.append(_estimate_one(operation, npu, system, block, placement, buffered, slack_cycles))
        slack_cycles = buffered.last_slice_cycles
    return NetworkEstimate(tuple(found))


def place(operation: VelaOperation, system: System, live_bytes: int) -> Placement:
    """Constants lie with the weights; feature maps in their memory, or staged where all that is live fits."""
    staged = system.staging if live_bytes <= system.staging_bytes else system.feature_maps

    def memory(tensor: FeatureMap) -> Memory:
        if tensor.constant:
            return system.constants
        return system.feature_maps if tensor.external else staged

    return Placement(
        memory(operation.ifm),
        memory(operation.ofm),
        memory(operation.ifm2) if operation.ifm2 is not None else None,
        system.constants if operation.weights is not None else None,
    )


def _live_bytes(operations: Sequence[VelaOperation]) -> list[int]:
    """Bytes of what an operation reads and writes; tensors that wait for a later operation are not known here."""
    return [
        sum(
            tensor.bytes
            for tensor in (operation.ifm, operation.ifm2, operation.ofm)
            if tensor is not None and not tensor.constant
        )
        for operation in operations
    ]


def _estimate_one(
    operation: VelaOperation,
    npu: Npu,
    system: System,
    block: Block,
    placement: Placement,
    buffered: Buffered,
    slack_cycles: int,
) -> OperationEstimate:
    run = operation_cycles(operation, npu, block, buffered.placement(placement, system))
    weights = operation.weights
    if buffered.slices and weights is not None:
        first = transfer_cycles(npu, system, buffered.slice_bytes[0])
        whole = transfer_cycles(npu, system, weights.bytes)
        run = max(whole - slack_cycles + buffered.last_slice_cycles, run + max(0, first - slack_cycles))
    elif operation.table_bytes and system.constants is not system.staging:
        # tables are copied into the NPU's own buffer, which takes a byte a cycle and no latency
        copy = operation.table_bytes / system.constants.bytes_per_cycle(npu) + system.constants.read_latency_cycles
        run += max(0, max(int(copy), operation.table_bytes) - slack_cycles)
    return OperationEstimate(
        operation.name, run, _memory_cycles(operation, npu, system, block, placement, buffered), block
    )


def transfer_cycles(npu: Npu, system: System, size: int) -> int:
    """Cycles to copy weights from where they lie to the staging memory."""
    source, target = system.constants, system.staging
    read = int(size / source.bytes_per_cycle(npu)) + source.read_latency_cycles
    return max(read, int(size / target.bytes_per_cycle(npu)) + target.write_latency_cycles)


def _memory_cycles(
    operation: VelaOperation, npu: Npu, system: System, block: Block, placement: Placement, buffered: Buffered
) -> dict[str, int]:
    moved: dict[str, float] = {}

    def add(memory: Memory, size: float) -> None:
        moved[memory.name] = moved.get(memory.name, 0.0) + size / memory.bytes_per_cycle(npu)

    count = accesses(operation, block)
    add(placement.ifm, burst_bytes(npu, placement.ifm, operation.ifm, block.ifm, count.ifm, read=True))
    if operation.ifm2 is not None and placement.ifm2 is not None:
        add(placement.ifm2, burst_bytes(npu, placement.ifm2, operation.ifm2, block.ifm, count.ifm2, read=True))
    add(placement.ofm, burst_bytes(npu, placement.ofm, operation.ofm, block.ofm, count.ofm, read=False))
    weights = operation.weights
    if weights is not None:
        fetched = count.weight_fetches * weights.encoded_bytes
        if buffered.slices:
            copied = max(0, weights.encoded_bytes - (buffered.slice_bytes[0] if buffered.before else 0))
            add(system.constants, copied)
            add(system.staging, copied + fetched)
        else:
            add(system.constants, fetched)
        add(system.constants, count.weight_fetches * weights.scale_bytes)
    return {name: math.floor(cycles) for name, cycles in moved.items()}
