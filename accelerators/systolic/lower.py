"""`lower`: a graph and a design to a tile program, layer by layer.

A graph with shapes only gives a program without a memory image: it can be timed and priced, not run. A quantized
graph gives both. Every layer is a step of its own, from `start` to `done`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from accelerators.systolic.chooser import OBJECTIVES, choose
from accelerators.systolic.constants import layer_constants
from accelerators.systolic.element_steps import ElementLayer, element_rule, element_step, plan_element, write_element
from accelerators.systolic.emit import LayerEmitter, LayerImage
from accelerators.systolic.fusion_choose import fuse
from accelerators.systolic.fusion_emit import GroupEmitter
from accelerators.systolic.fusion_loads import GroupImage
from accelerators.systolic.hardware import SystolicHardware, machine
from accelerators.systolic.image import (
    fill_borders,
    host_bytes,
    pack_parameters,
    pack_weights,
    parameter_bytes,
    weight_layout,
)
from accelerators.systolic.layer import Layer
from accelerators.systolic.memory_map import ALIGNMENT, ConstantSpace, place_tensors
from accelerators.systolic.partition import HostOp, Partition, partition
from accelerators.systolic.prefetch import prefetch
from accelerators.systolic.recurrent import RecurrentLayer
from accelerators.systolic.recurrent_lower import plan_recurrent, recurrent_step, write_recurrent
from accelerators.systolic.tiling import TileGrid, Tiling, grid
from accelerators.systolic.work import Fused, Work, writes_of
from dse.backend import Decisions
from dse.core.errors import InfeasibleError, ModelError, UsageError, Violation, nearest
from dse.ir import Graph
from dse.ir.quantized import clamp_bounds
from dse.ir.requantize import encode_add
from dse.program.tile.isa import PAYLOAD, Descriptor, MemoryId, Opcode
from dse.program.tile.memory_map import MemoryMap
from dse.program.tile.program import HostStep, Machine, TensorPlacement, TileProgram, TileStep

#: Decisions of the family with their defaults.
DECISIONS: dict[str, Any] = {
    "gather": True,
    "mapping_objective": "latency",
    "fuse_residual": True,
    "fuse_layers": "off",
    "prefetch": "off",
    "fixed_point": False,
}

#: Decisions that are either one.
SWITCHES = ("fuse_layers", "prefetch")

MAX_MEMORY_BYTES = 1 << next(field.bits for field in PAYLOAD[Opcode.LOAD] if field.name == "ext_base")

_LIMITS = {op: {f.name: 1 << f.bits for f in PAYLOAD[op] if not f.signed} for op in Opcode}


@dataclass(frozen=True)
class Lowered:
    """A program, its work items in order, per item the grid it came from, and where everything lies in memory."""

    program: TileProgram
    work: tuple[Work, ...]
    grids: tuple[TileGrid | None, ...]
    parts: Partition
    memory: MemoryMap


@dataclass(frozen=True)
class _Plan:
    """One layer's grid and where its constants lie; `zero_word` is 0 for a layer that reads memory."""

    layer: Layer
    grid: TileGrid
    weight_base: dict[tuple[int, int], int]
    parameter_base: int
    zero_word: int = 0


def lower(graph: Graph, hw: SystolicHardware, decisions: Decisions) -> Lowered:
    """Compile a prepared (float, shapes suffice) or quantized graph.

    Raises
    ------
    InfeasibleError: a layer fits no tiling, has too many channels, or a queue outgrows descriptor memory.
    ModelError: an op has no lowering; a quantized graph was made for other weight bits.
    """
    target = machine(hw)
    settings = _settings(decisions)
    parts = partition(
        graph,
        fuse_residual=settings["fuse_residual"] and hw.requantize == "q31",
        vector=element_rule(graph, hw, target, fixed_point=settings["fixed_point"]),
    )

    def tiling(layer: Layer) -> Tiling:
        _check_parameters(layer, target)
        return choose(layer, target, settings["mapping_objective"], bool(settings["gather"]))

    fusing = settings["fuse_layers"] == "auto"
    work: tuple[Work, ...] = fuse(graph, parts, target, tiling) if fusing else parts.work
    placements, regions, peak, bound = place_tensors(graph, parts, work)
    space = ConstantSpace(-(-peak // ALIGNMENT) * ALIGNMENT, regions, len(work))
    plans = [_plans(item, target, tiling, space) for item in work]
    sequences = {
        index: plan_recurrent(item, target, space.take)
        for index, item in enumerate(work)
        if isinstance(item, RecurrentLayer)
    }
    vectors = {
        index: plan_element(item, target, space.take)
        for index, item in enumerate(work)
        if isinstance(item, ElementLayer)
    }
    _check_memory(graph, space.next)
    quantized = _is_quantized(graph, parts, work, hw)
    steps: list[TileStep | HostStep] = []
    for index, (item, plan) in enumerate(zip(work, plans, strict=True)):
        if isinstance(item, HostOp):
            read, write = host_bytes(graph, item)
            steps.append(HostStep(item.op.name, item.op.name, item.op.kind, read, write, index, item.reason))
        elif isinstance(item, RecurrentLayer):
            step = recurrent_step(sequences[index], graph, placements, index, quantized=quantized)
            _check_queues(item.name, step.queues, target)
            steps.append(step)
        elif isinstance(item, ElementLayer):
            step = element_step(vectors[index], graph, placements, index, quantized=quantized)
            _check_queues(item.name, step.queues, target)
            steps.append(step)
        elif isinstance(item, Layer):
            steps.append(_layer_step(graph, item, plan[0], target, placements, index, quantized=quantized))
        else:
            steps.append(_group_step(graph, item, plan, target, placements, index, quantized=quantized))
    if settings["prefetch"] == "auto":
        steps = list(prefetch(steps, target))
    memory = _build_image(graph, plans, target, placements, space.next) if quantized else None
    if memory is not None:
        for code in sequences.values():
            write_recurrent(memory, code, graph)
        for vector in vectors.values():
            write_element(memory, vector, graph)
    constants = sum(region.bytes for region in space.regions if region.kind != "tensor")
    program = TileProgram(target, tuple(steps), placements, space.next, memory, constants)
    grids = tuple(plan[0].grid if isinstance(item, Layer) else None for item, plan in zip(work, plans, strict=True))
    return Lowered(program, work, grids, parts, MemoryMap(tuple(space.regions), peak, bound, constants))


def _layer_step(
    graph: Graph,
    layer: Layer,
    plan: _Plan,
    target: Machine,
    placements: Mapping[str, TensorPlacement],
    index: int,
    *,
    quantized: bool,
) -> TileStep:
    """The step of a layer on its own."""
    image = LayerImage(
        placements[layer.input],
        placements[layer.output],
        placements[layer.residual] if layer.residual else None,
        plan.weight_base,
        plan.parameter_base,
        _vector_fields(graph, layer) if quantized else _shape_fields(layer),
    )
    queues = LayerEmitter(plan.grid, target, image, index).emit()
    _check_queues(layer.name, queues, target)
    ops = (layer.op.name, *([layer.add.name] if layer.add else []))
    return TileStep(layer.name, ops, queues, layer.macs, index, {"mapping": plan.grid.tiling.describe()})


def _group_step(
    graph: Graph,
    item: Fused,
    plans: Sequence[_Plan],
    target: Machine,
    placements: Mapping[str, TensorPlacement],
    index: int,
    *,
    quantized: bool,
) -> TileStep:
    """The step of a fused group."""
    group = item.group
    image = GroupImage(
        placements[group.input],
        placements[group.output],
        placements[group.residual] if group.residual else None,
        [min(plan.weight_base.values()) for plan in plans],
        plans[0].parameter_base,
        [plan.zero_word for plan in plans],
        [_vector_fields(graph, layer) if quantized else _shape_fields(layer) for layer in group.layers],
    )
    queues = GroupEmitter(item.plan, target, image, index).emit()
    _check_queues(group.name, queues, target)
    ops = [name for layer in group.layers for name in (layer.op.name, *([layer.add.name] if layer.add else []))]
    return TileStep(group.name, tuple(ops), queues, group.macs, index, {"mapping": item.plan.describe()})


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
    for name in SWITCHES:
        if settings[name] not in ("auto", "off"):
            value = settings[name]
            raise UsageError(f"{name} {value!r} is neither auto nor off{nearest(str(value), ('auto', 'off'))}")
    for name in ("gather", "fuse_residual", "fixed_point"):
        if not isinstance(settings[name], bool):
            raise UsageError(f"{name} must be true or false, not {settings[name]!r}")
    return settings


def _check_parameters(layer: Layer, target: Machine) -> None:
    channel_words = -(-layer.out_channels // target.columns) * (target.columns // target.vector_lanes)
    if channel_words > target.words[MemoryId.PARAMETER]:
        held = target.words[MemoryId.PARAMETER] * target.vector_lanes
        raise InfeasibleError(
            f"layer {layer.name!r}",
            [Violation("parameter_channels", held, channel_words * target.vector_lanes, "channels",
                       "bias and scale of every output channel must fit on chip")],
        )  # fmt: skip


def _plans(item: Work, target: Machine, tiling: Callable[[Layer], Tiling], space: ConstantSpace) -> tuple[_Plan, ...]:
    """Grids of an item's layers and addresses of their constants; none for a host operation."""
    if isinstance(item, HostOp | RecurrentLayer | ElementLayer):
        return ()
    grids = [plan.grid for plan in item.plan.layers] if isinstance(item, Fused) else []
    layers = item.group.layers if isinstance(item, Fused) else (item,)
    if isinstance(item, Layer):
        grids = [grid(item, tiling(item), target.rows, target.columns)]
    # the parameters of a group are loaded at once, so they lie one behind the other
    parameters = space.take(item.name, "parameters", sum(parameter_bytes(layer, target) for layer in layers))
    plans = []
    for position, (layer, layer_grid) in enumerate(zip(layers, grids, strict=True)):
        addresses, size = weight_layout(layer_grid, target, 0)
        base = space.take(layer.name, "weights", size)
        zero = 0
        if isinstance(item, Fused) and item.plan.layers[position].buffer.bordered:
            zero = space.take(layer.name, "zero points", target.rows)
        plans.append(
            _Plan(layer, layer_grid, {key: base + value for key, value in addresses.items()}, parameters, zero)
        )
        parameters += parameter_bytes(layer, target)
    return tuple(plans)


def _is_quantized(graph: Graph, parts: Partition, work: Sequence[Work], hw: SystolicHardware) -> bool:
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
    activations = dict.fromkeys([*graph.inputs, *(name for item in work for name in writes_of(item))])
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


def _check_queues(name: str, queues: Mapping[str, tuple[Descriptor, ...]], target: Machine) -> None:
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
                Violation(f"{descriptor.op.name} {field}", value, limits[field] - 1, "", "descriptor field")
                for field, value in descriptor.values.items()
                if value >= limits.get(field, math.inf)
            ]
    if violations:
        raise InfeasibleError(f"layer {name!r}", violations)


def _build_image(
    graph: Graph,
    plans: Sequence[Sequence[_Plan]],
    target: Machine,
    placements: Mapping[str, TensorPlacement],
    size: int,
) -> npt.NDArray[np.uint8]:
    memory = np.zeros(size, np.uint8)
    fill_borders(memory, placements)
    for plan in (plan for item in plans for plan in item):
        weights, bias, scales = layer_constants(graph, plan.layer)
        packed = pack_weights(plan.grid, target, weights)
        base = min(plan.weight_base.values())
        memory[base : base + packed.size] = packed
        try:
            parameters = pack_parameters(plan.layer, target, bias, scales)
        except ValueError as error:
            raise ModelError(f"layer {plan.layer.name!r}: {error}") from error
        memory[plan.parameter_base : plan.parameter_base + parameters.size] = parameters
        if plan.zero_word:
            quantization = graph[plan.layer.op.inputs[0]].quantization
            assert quantization is not None
            memory[plan.zero_word : plan.zero_word + target.rows] = np.uint8(quantization.zero_point & 0xFF)
    return memory
