"""`lower`: a graph and a design to a tile program.

Layers that follow each other without a host operation between are one step of the program: the constants of the next
layer come in while this one computes. A graph with shapes only gives a program to time and price; a quantized one
gives a memory image too.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accelerators.npu.emit import ConvEmitter, ConvImage
from accelerators.npu.hardware import NpuHardware, machine
from accelerators.npu.layer import ConvLayer, HostOp, LstmLayer, Partition, is_map, outputs_of, partition
from accelerators.npu.lstm import LstmCode, emit_lstm, plan_lstm, write_lstm
from accelerators.npu.placement import ALIGNMENT, ConstantSpace, fill_borders, place_tensors
from accelerators.npu.roll import roll
from accelerators.npu.stream import Stream
from accelerators.npu.tiles import Tiling, WeightTile, choose_tiling
from accelerators.npu.weights import (
    Stream as EncodedStream,
)
from accelerators.npu.weights import (
    dense,
    is_sparse,
    layer_constants,
    pack_parameters,
    pack_tile,
    parameter_bytes,
    streams,
)
from dse.backend import Decisions
from dse.core.errors import InfeasibleError, ModelError, UsageError, Violation, nearest
from dse.ir import Graph
from dse.ir.quantized import clamp_bounds
from dse.ir.requantize import encode_add
from dse.program.tile.isa import ENGINES, PAYLOAD, Descriptor, Opcode
from dse.program.tile.memory_map import MemoryMap
from dse.program.tile.program import HostStep, Machine, TensorPlacement, TileProgram, TileStep

#: Decisions of the family with their defaults.
DECISIONS: dict[str, Any] = {"latency_hiding": True, "fuse_residual": True}

MAX_MEMORY_BYTES = 1 << next(field.bits for field in PAYLOAD[Opcode.LOAD] if field.name == "ext_base")


@dataclass(frozen=True)
class Lowered:
    """A program, its work items, their tilings, the encoded size of every weight tile by address, and the memory."""

    program: TileProgram
    work: tuple[ConvLayer | LstmLayer | HostOp, ...]
    tilings: Mapping[int, Tiling]
    encoded: Mapping[int, EncodedStream]
    weight_addresses: Mapping[int, tuple[int, ...]]
    parts: Partition
    memory: MemoryMap


@dataclass(frozen=True)
class _ConvPlan:
    """A layer's tiling, the streams of its weight tiles, and where its constants lie."""

    tiling: Tiling
    streams: Mapping[WeightTile, EncodedStream]
    addresses: Mapping[WeightTile, int]
    parameters: int


def lower(graph: Graph, hw: NpuHardware, decisions: Decisions) -> Lowered:
    """Compile a prepared (float, shapes suffice) or quantized graph.

    Raises
    ------
    InfeasibleError: a layer fits no tiling, or a queue outgrows descriptor memory.
    ModelError: an op has no lowering.
    """
    target, settings = machine(hw), _settings(decisions)
    parts = partition(graph, fuse_add=settings["fuse_residual"] and hw.requantize == "q31")
    placed = place_tensors(graph, parts)
    space = ConstantSpace(-(-placed.peak // ALIGNMENT) * ALIGNMENT, placed.regions, len(parts.work))
    quantized = _is_quantized(graph, parts)
    buffers = 2 if settings["latency_hiding"] else 1
    if buffers == 1 and hw.dma_channels == 2:
        hint = "without latency hiding one channel does all loads"
        raise InfeasibleError(graph.name, [Violation("dma_channels", hw.dma_channels, 1, "channels", hint)])
    plans: dict[int, _ConvPlan] = {}
    lstms: dict[int, LstmCode] = {}
    for index, item in enumerate(parts.work):
        if isinstance(item, ConvLayer):
            plans[index] = _plan(graph, item, hw, target, space, buffers, quantized=quantized)
        elif isinstance(item, LstmLayer):
            lstms[index] = plan_lstm(item, target, space.take)
    if space.next > MAX_MEMORY_BYTES:
        raise InfeasibleError(graph.name, [Violation("memory", space.next, MAX_MEMORY_BYTES, "bytes")])
    steps: list[TileStep | HostStep] = []
    for run in _runs(parts):
        item = parts.work[run[0]]
        if isinstance(item, HostOp):
            read = sum(graph[name].elements for name in item.inputs)
            steps.append(HostStep(item.op.name, item.op.name, item.op.kind, read, graph[item.output].elements, run[0]))
        elif isinstance(item, LstmLayer):
            queues = emit_lstm(lstms[run[0]], graph, placed.placements, run[0], quantized=quantized)
            rolled = {engine: roll(queue) for engine, queue in queues.items()}
            steps.append(_step([item], rolled, target, run[0]))
        else:
            convs = _ConvSteps(graph, parts, plans, placed.placements, hw, buffers, quantized=quantized)
            steps += convs.steps(run)
    image = _image(graph, parts, plans, lstms, target, placed.placements, space.next) if quantized else None
    constants = sum(region.bytes for region in space.regions if region.kind != "tensor")
    program = TileProgram(target, tuple(steps), placed.placements, space.next, image, constants)
    encoded = {p.addresses[tile]: stream for p in plans.values() for tile, stream in p.streams.items()}
    memory = MemoryMap(tuple(space.regions), placed.peak, placed.bound, constants)
    tilings = {index: plan.tiling for index, plan in plans.items()}
    addresses = {index: tuple(plan.addresses.values()) for index, plan in plans.items()}
    return Lowered(program, parts.work, tilings, encoded, addresses, parts, memory)


def _settings(decisions: Decisions) -> dict[str, Any]:
    for name, value in decisions.values.items():
        if name not in DECISIONS:
            raise UsageError(f"{name!r} is not a decision of the npu family{nearest(name, DECISIONS)}")
        if not isinstance(value, bool):
            raise UsageError(f"{name} must be true or false, not {value!r}")
    return {name: decisions.get(name, default) for name, default in DECISIONS.items()}


def _runs(parts: Partition) -> list[list[int]]:
    """Indices of work items by step: convolutions in a row are one."""
    runs: list[list[int]] = []
    for index, item in enumerate(parts.work):
        if isinstance(item, ConvLayer) and runs and isinstance(parts.work[runs[-1][-1]], ConvLayer):
            runs[-1].append(index)
        else:
            runs.append([index])
    return runs


def _plan(
    graph: Graph,
    layer: ConvLayer,
    hw: NpuHardware,
    target: Machine,
    space: ConstantSpace,
    buffers: int,
    *,
    quantized: bool,
) -> _ConvPlan:
    data = graph[layer.op.inputs[1]].data if quantized else None
    weights = dense(layer, data) if data is not None else None
    sparse = hw.sparsity == "2:4" and layer.groups == 1 and weights is not None and is_sparse(weights)

    def encoded(tiling: Tiling) -> dict[WeightTile, EncodedStream]:
        return streams(layer, tiling, weights, encode=hw.weight_encoding, sparse=sparse)

    tiling = choose_tiling(layer, hw, target, sparse=sparse, encoded_share=1.0, buffers=buffers)
    share = sum(stream.bytes for stream in encoded(tiling).values()) / layer.weights
    tiling = choose_tiling(layer, hw, target, sparse=sparse, encoded_share=share, buffers=buffers)
    sizes = {
        tile: tile.blocks * layer.kernel[0] * layer.kernel[1] * tile.words * target.rows * target.columns
        for tile in tiling.weight_tiles()
    }
    base = space.take(layer.name, "weights", sum(sizes.values()))
    addresses = {}
    for tile, size in sizes.items():
        addresses[tile] = base
        base += size
    parameters = space.take(layer.name, "parameters", parameter_bytes(layer.out_channels, target))
    return _ConvPlan(tiling, encoded(tiling), addresses, parameters)


class _ConvSteps:
    """Steps of convolutions that follow each other: as few as descriptor memory allows."""

    def __init__(
        self,
        graph: Graph,
        parts: Partition,
        plans: Mapping[int, _ConvPlan],
        placements: Mapping[str, TensorPlacement],
        hw: NpuHardware,
        buffers: int,
        *,
        quantized: bool,
    ) -> None:
        self.graph, self.parts, self.plans, self.placements = graph, parts, plans, placements
        self.hw, self.target, self.buffers, self.quantized = hw, machine(hw), buffers, quantized

    def steps(self, run: Sequence[int]) -> list[TileStep]:
        """The layers of `run` as one step, or as two halves where a queue does not fit.

        Raises
        ------
        InfeasibleError: a layer on its own does not fit.
        """
        stream = Stream(self.target, self.buffers, run[0], take_turns=self.hw.shared_accumulators)
        layers = []
        for index in run:
            layer = self.parts.work[index]
            assert isinstance(layer, ConvLayer)
            layers.append(layer)
            stream.step = index
            ConvEmitter(stream, self.plans[index].tiling, self._image(layer, self.plans[index])).emit()
        queues = {engine: roll(queue) for engine, queue in stream.final().items()}
        if len(run) > 1 and max(len(queue) for queue in queues.values()) >= self.target.descriptors:
            half = len(run) // 2
            return self.steps(run[:half]) + self.steps(run[half:])
        return [_step(layers, queues, self.target, run[0])]

    def _image(self, layer: ConvLayer, plan: _ConvPlan) -> ConvImage:
        place = self.placements[layer.input]
        fields = {"add": 1, "add_shift": 1} if layer.add else {}
        return ConvImage(
            place,
            self.placements[layer.output],
            self.placements[layer.residual] if layer.residual else None,
            plan.addresses,
            plan.parameters,
            place.row_bytes if is_map(self.graph, layer.input) else layer.in_channels,
            _vector_fields(self.graph, layer) if self.quantized else fields,
        )


def _step(
    layers: Sequence[ConvLayer | LstmLayer], queues: Mapping[str, tuple[Descriptor, ...]], target: Machine, index: int
) -> TileStep:
    """A step of rolled queues, HALT added; refused where one outgrows descriptor memory."""
    name = layers[0].name if len(layers) == 1 else f"{layers[0].name} .. {layers[-1].name}"
    final = {engine: (*queues[engine], Descriptor(Opcode.HALT)) for engine in ENGINES}
    broken = [
        Violation("descriptors", len(queue), target.descriptors, "descriptors", f"{engine} queue")
        for engine, queue in final.items()
        if len(queue) > target.descriptors
    ]
    if broken:
        raise InfeasibleError(f"step {name!r}", broken)
    ops = [
        op for layer in layers
        for op in (layer.op.name, *([layer.add.name] if isinstance(layer, ConvLayer) and layer.add else []))
    ]  # fmt: skip
    return TileStep(name, tuple(ops), final, sum(layer.macs for layer in layers), index)


def _is_quantized(graph: Graph, parts: Partition) -> bool:
    """Whether the graph carries int8 values throughout: weights, and every tensor in memory."""
    for item in parts.work:
        if isinstance(item, ConvLayer | LstmLayer) and graph[item.op.inputs[1]].dtype != "int8":
            return False
        # one quantized for another arithmetic (tflite's) has a time here, but no values
        if isinstance(item, LstmLayer) and "gate_scales" not in item.op.attributes:
            return False
    names = dict.fromkeys([*graph.inputs, *(name for item in parts.work for name in outputs_of(item))])
    return all(graph[name].quantization is not None and graph[name].dtype == "int8" for name in names)


def _vector_fields(graph: Graph, layer: ConvLayer) -> dict[str, int]:
    """Zero points, bounds and residual multipliers of a layer's VECTORs."""
    own = graph[layer.op.outputs[0]].quantization
    assert own is not None
    if layer.add is None or layer.residual is None:
        low, high = clamp_bounds(layer.op, own)
        return {"zero_point": own.zero_point, "low": low, "high": high}
    first = layer.add.inputs[0] == layer.op.outputs[0]
    other, out = graph[layer.add.inputs[1 if first else 0]].quantization, graph[layer.output].quantization
    assert other is not None
    assert out is not None
    low, high = clamp_bounds(layer.add, out)
    scales = (own.scale[0], other.scale[0]) if first else (other.scale[0], own.scale[0])
    try:
        left, right, shift = encode_add(*scales, out.scale[0])
    except ValueError as error:
        raise ModelError(f"layer {layer.name!r}: {error}") from error
    return {
        "zero_point": own.zero_point, "low": low, "high": high, "add": 1, "zero_point_res": other.zero_point,
        "zero_point_add": out.zero_point, "multiplier_y": left if first else right,
        "multiplier_res": right if first else left, "add_shift": shift,
    }  # fmt: skip


def _image(
    graph: Graph,
    parts: Partition,
    plans: Mapping[int, _ConvPlan],
    lstms: Mapping[int, LstmCode],
    target: Machine,
    placements: Mapping[str, TensorPlacement],
    size: int,
) -> npt.NDArray[np.uint8]:
    memory = np.zeros(size, np.uint8)
    fill_borders(memory, list(placements.values()))
    for index, plan in plans.items():
        layer = parts.work[index]
        assert isinstance(layer, ConvLayer)
        weights, bias, scales = layer_constants(graph, layer)
        for tile, address in plan.addresses.items():
            packed = pack_tile(layer, plan.tiling, weights, tile)
            memory[address : address + packed.size] = packed
        parameters = pack_parameters(layer.name, target, bias, scales)
        memory[plan.parameters : plan.parameters + parameters.size] = parameters
    for code in lstms.values():
        write_lstm(memory, code, graph)
    return memory
