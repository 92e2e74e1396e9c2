"""`lower`: a graph and a design to a tile program, layer by layer.

A graph with shapes only gives a program without a memory image: it can be timed and priced, not run. A quantized
graph gives both. Every layer is a step of its own, from `start` to `done`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accelerators.systolic.chooser import OBJECTIVES, choose
from accelerators.systolic.emit import LayerEmitter, LayerImage
from accelerators.systolic.hardware import SystolicHardware, machine
from accelerators.systolic.image import (
    Allocator,
    fill_borders,
    host_bytes,
    pack_parameters,
    pack_weights,
    parameter_bytes,
    place_tensors,
    weight_layout,
)
from accelerators.systolic.layer import Layer
from accelerators.systolic.partition import HostOp, Partition, partition
from accelerators.systolic.tiling import TileGrid, grid
from dse.backend import Decisions
from dse.core.errors import InfeasibleError, ModelError, UsageError, Violation, nearest
from dse.ir import Graph
from dse.ir.quantized import clamp_bounds, conv_scales
from dse.ir.requantize import encode_add
from dse.program.tile.isa import PAYLOAD, Descriptor, MemoryId, Opcode
from dse.program.tile.program import HostStep, Machine, TensorPlacement, TileProgram, TileStep

#: Decisions of the family with their defaults.
DECISIONS: dict[str, Any] = {"gather": True, "mapping_objective": "latency", "fuse_residual": True}

MAX_MEMORY_BYTES = 1 << next(field.bits for field in PAYLOAD[Opcode.LOAD] if field.name == "ext_base")

_LIMITS = {op: {f.name: 1 << f.bits for f in PAYLOAD[op] if not f.signed} for op in Opcode}


@dataclass(frozen=True)
class Lowered:
    """A program and, per tile step, the grid it came from."""

    program: TileProgram
    grids: tuple[TileGrid | None, ...]
    parts: Partition


@dataclass(frozen=True)
class _Plan:
    """One layer's grid and where its constants lie."""

    grid: TileGrid
    weight_base: dict[tuple[int, int], int]
    parameter_base: int


def lower(graph: Graph, hw: SystolicHardware, decisions: Decisions) -> Lowered:
    """Compile a prepared (float, shapes suffice) or quantized graph.

    Raises
    ------
    InfeasibleError: a layer fits no tiling, has too many channels, or a queue outgrows descriptor memory.
    ModelError: an op has no lowering; a quantized graph was made for other weight bits.
    """
    target = machine(hw)
    settings = _settings(decisions)
    fuse = settings["fuse_residual"] and hw.requantize == "q31"
    parts = partition(graph, fuse_residual=fuse)
    allocator = Allocator()
    placements = place_tensors(graph, parts, allocator)
    plans: dict[str, _Plan] = {}
    constants = 0
    for item in parts.work:
        if isinstance(item, Layer):
            plans[item.output] = plan = _plan(item, target, settings, allocator)
            constants += parameter_bytes(item, target)
            constants += weight_layout(plan.grid, target, 0)[1]
    _check_memory(graph, allocator.next)
    quantized = _is_quantized(graph, parts, hw)
    steps: list[TileStep | HostStep] = []
    grids: list[TileGrid | None] = []
    for index, item in enumerate(parts.work):
        if isinstance(item, HostOp):
            read, write = host_bytes(graph, item)
            steps.append(HostStep(item.op.name, item.op.name, item.op.kind, read, write, index))
            grids.append(None)
            continue
        plan = plans[item.output]
        fields = _vector_fields(graph, item) if quantized else _shape_fields(item)
        residual = placements[item.residual] if item.residual else None
        image = LayerImage(
            placements[item.input],
            placements[item.output],
            residual,
            plan.weight_base,
            plan.parameter_base,
            fields,
        )
        queues = LayerEmitter(plan.grid, target, image, index).emit()
        _check_queues(item, queues, target)
        ops = (item.op.name, *([item.add.name] if item.add else []))
        steps.append(TileStep(item.name, ops, queues, item.macs, index, {"mapping": plan.grid.tiling.describe()}))
        grids.append(plan.grid)
    memory = _build_image(graph, parts, plans, target, placements, allocator.next) if quantized else None
    program = TileProgram(target, tuple(steps), placements, allocator.next, memory, constants)
    return Lowered(program, tuple(grids), parts)


def _check_memory(graph: Graph, size: int) -> None:
    """Descriptors address memory with 32 bits."""
    if size > MAX_MEMORY_BYTES:
        hint = "tensors and weights of the whole network"
        raise InfeasibleError(graph.name, [Violation("memory", size, MAX_MEMORY_BYTES, "bytes", hint)])


def _settings(decisions: Decisions) -> dict[str, Any]:
    unknown = set(decisions.values) - set(DECISIONS)
    if unknown:
        name = sorted(unknown)[0]
        raise UsageError(f"{name!r} is not a decision of the systolic family{nearest(name, DECISIONS)}")
    settings = {name: decisions.get(name, default) for name, default in DECISIONS.items()}
    if settings["mapping_objective"] not in OBJECTIVES:
        value = settings["mapping_objective"]
        raise UsageError(f"mapping_objective {value!r} is not an objective{nearest(str(value), OBJECTIVES)}")
    for name in ("gather", "fuse_residual"):
        if not isinstance(settings[name], bool):
            raise UsageError(f"{name} must be true or false, not {settings[name]!r}")
    return settings


def _plan(layer: Layer, target: Machine, settings: dict[str, Any], allocator: Allocator) -> _Plan:
    channel_words = -(-layer.out_channels // target.columns) * (target.columns // target.vector_lanes)
    if channel_words > target.words[MemoryId.PARAMETER]:
        held = target.words[MemoryId.PARAMETER] * target.vector_lanes
        raise InfeasibleError(
            f"layer {layer.name!r}",
            [Violation("parameter_channels", held, channel_words * target.vector_lanes, "channels",
                       "bias and scale of every output channel must fit on chip")],
        )  # fmt: skip
    tiling = choose(layer, target, settings["mapping_objective"], bool(settings["gather"]))
    layer_grid = grid(layer, tiling, target.rows, target.columns)
    addresses, size = weight_layout(layer_grid, target, 0)
    base = allocator.take(size)
    weight_base = {key: base + value for key, value in addresses.items()}
    return _Plan(layer_grid, weight_base, allocator.take(parameter_bytes(layer, target)))


def _is_quantized(graph: Graph, parts: Partition, hw: SystolicHardware) -> bool:
    """Whether the graph carries int8 values throughout: weights, and every tensor in memory.

    Raises
    ------
    ModelError: weights have more bits than the array multiplies.
    """
    layers = [item for item in parts.work if isinstance(item, Layer)]
    kinds = {graph[layer.op.inputs[1]].dtype for layer in layers}
    if kinds - {"int8"}:
        return False
    for layer in layers:
        quantization = graph[layer.op.inputs[1]].quantization
        if quantization is None or quantization.bits > hw.weight_bits:
            bits = quantization.bits if quantization else "unknown"
            raise ModelError(
                f"layer {layer.name!r} has weights of {bits} bits, the array multiplies {hw.weight_bits}-bit weights"
            )
    activations = dict.fromkeys([*graph.inputs, *(item.output for item in parts.work)])
    for name in activations:
        tensor = graph[name]
        if tensor.quantization is None or tensor.dtype != "int8":
            return False
    return True


def _shape_fields(layer: Layer) -> dict[str, int]:
    """What a VECTOR does when no values are known: a residual add is counted, its arithmetic is left open."""
    return {"add": 1, "add_shift": 1} if layer.add is not None else {}


def _vector_fields(graph: Graph, layer: Layer) -> dict[str, int]:
    """Zero points, clamp bounds and residual multipliers of a layer's VECTOR descriptors."""
    conv_out = graph[layer.op.outputs[0]].quantization
    assert conv_out is not None
    if layer.add is None or layer.residual is None:
        low, high = clamp_bounds(layer.op, conv_out)
        return {"zero_point": conv_out.zero_point, "low": low, "high": high}
    out = graph[layer.add.outputs[0]].quantization
    residual = graph[layer.residual].quantization
    assert out is not None
    assert residual is not None
    low, high = clamp_bounds(layer.add, out)
    multiplier_y, multiplier_res, shift = _add_multipliers(
        layer,
        conv_out.scale[0],
        residual.scale[0],
        out.scale[0],
        swapped=layer.add.inputs[0] != layer.op.outputs[0],
    )
    return {
        "zero_point": conv_out.zero_point, "low": low, "high": high, "add": 1,
        "zero_point_res": residual.zero_point, "zero_point_add": out.zero_point,
        "multiplier_y": multiplier_y, "multiplier_res": multiplier_res, "add_shift": shift,
    }  # fmt: skip


def _add_multipliers(layer: Layer, own: float, other: float, out: float, *, swapped: bool) -> tuple[int, int, int]:
    try:
        first, second, shift = encode_add(other, own, out) if swapped else encode_add(own, other, out)
    except ValueError as error:
        raise ModelError(f"layer {layer.name!r}: {error}") from error
    return (second, first, shift) if swapped else (first, second, shift)


def _check_queues(layer: Layer, queues: dict[str, tuple[Descriptor, ...]], target: Machine) -> None:
    """Queues must fit descriptor memory and every field its bits."""
    violations = []
    for engine, queue in queues.items():
        if len(queue) > target.descriptors:
            violations.append(
                Violation("descriptors", len(queue), target.descriptors, "descriptors", f"{engine} queue")
            )
        for descriptor in queue:
            limits = _LIMITS[descriptor.op]
            violations += [
                Violation(f"{descriptor.op.name} {name}", value, limits[name] - 1, "", "descriptor field")
                for name, value in descriptor.values.items()
                if value >= limits.get(name, math.inf)
            ]
    if violations:
        raise InfeasibleError(f"layer {layer.name!r}", violations)


def _build_image(
    graph: Graph,
    parts: Partition,
    plans: dict[str, _Plan],
    target: Machine,
    placements: dict[str, TensorPlacement],
    size: int,
) -> npt.NDArray[np.uint8]:
    memory = np.zeros(size, np.uint8)
    fill_borders(memory, placements)
    for item in parts.work:
        if not isinstance(item, Layer):
            continue
        plan = plans[item.output]
        weights, bias, scales = _constants(graph, item)
        packed = pack_weights(plan.grid, target, weights)
        base = min(plan.weight_base.values())
        memory[base : base + packed.size] = packed
        try:
            parameters = pack_parameters(item, target, bias, scales)
        except ValueError as error:
            raise ModelError(f"layer {item.name!r}: {error}") from error
        memory[plan.parameter_base : plan.parameter_base + parameters.size] = parameters
    return memory


def _check_accumulators(
    layer: Layer, weights: npt.NDArray[np.int8], bias: npt.NDArray[np.int64], zero_point: int
) -> None:
    """No int8 input may drive a sum, bias included, out of the 32 bits of an accumulator.

    Sums on the way may wrap: they are taken modulo 2**32, so that only the last one counts.
    """
    positive = np.maximum(weights, 0).sum(axis=1, dtype=np.int64)
    negative = np.minimum(weights, 0).sum(axis=1, dtype=np.int64)
    low, high = -128 - zero_point, 127 - zero_point
    most = np.maximum(np.abs(positive * high + negative * low + bias), np.abs(positive * low + negative * high + bias))
    if most.size and int(most.max()) >= 1 << 31:
        channel = int(most.argmax())
        raise ModelError(
            f"layer {layer.name!r}: the sum of channel {channel} may reach {int(most[channel])}, beyond the 32 bits of "
            "an accumulator; split its reduction into several layers"
        )


def _constants(
    graph: Graph, layer: Layer
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.int64], npt.NDArray[np.float32]]:
    """Weights as stored, bias with the input zero point folded in, and requantization scales per channel."""
    op = layer.op
    weights = graph[op.inputs[1]].data
    quantization = graph[op.inputs[0]].quantization
    if weights is None or quantization is None:
        raise ModelError(f"layer {layer.name!r}: quantized weights and input quantization are needed to compile values")
    if op.kind == "gemm" and layer.kernel != (1, 1):
        weights = weights.reshape(layer.out_channels, layer.in_channels, *layer.kernel)
    sums = weights.reshape(layer.out_channels, -1).astype(np.int64).sum(axis=1)
    bias = np.zeros(layer.out_channels, np.int64)
    if len(op.inputs) > 2 and op.inputs[2]:
        data = graph[op.inputs[2]].data
        assert data is not None
        bias = bias + data.astype(np.int64)
    _check_accumulators(layer, weights.reshape(layer.out_channels, -1), bias, quantization.zero_point)
    scales = np.broadcast_to(conv_scales(graph, op), (layer.out_channels,))
    return weights, bias - quantization.zero_point * sums, scales
