"""A mapped network as plain data for `dse map --json`."""

from __future__ import annotations

from typing import Any

from dse.flow.map import LayerMapping, NetworkMapping
from dse.mapping.layers import PartMapping
from dse.mapping.nests import reason_unmapped
from dse.mapping.residency import room_of_value
from dse.mapping.residency_search import Residency

#: Grows when a key changes its meaning or goes; new keys may come.
SCHEMA_VERSION = 1


def mapping_data(result: NetworkMapping, workload: str) -> dict[str, Any]:
    """Totals, what is not mapped and why, per layer the mapping, cost and traffic per level and tensor, and what rests.

    Energies in pJ, tiles, reads, fills and updates in elements over all instances, of one run of a layer.
    """
    return {
        "schema": SCHEMA_VERSION,
        "workload": workload,
        "accelerator": result.arch.name,
        "objective": result.objective,
        "mode": result.mode,
        "energy_pj": result.energy_pj,
        "network_pj": result.network_pj,
        "cycles": result.cycles,
        "macs": result.macs,
        "gap": result.gap,
        "unmapped": dict(result.unmapped),
        "unmapped_reasons": {kind: reason_unmapped(kind) for kind in result.unmapped},
        "layers": [_layer(layer) for layer in result.layers],
        "residency": _residency(result),
    }


def _layer(layer: LayerMapping) -> dict[str, Any]:
    return {
        "name": layer.name,
        "op": layer.op,
        "kind": layer.kind,
        "same_as": layer.same_as or None,
        "bounds": dict(zip(layer.problem.dims, layer.problem.bounds, strict=True)),
        **_part(layer.part),
    }


def _part(part: PartMapping) -> dict[str, Any]:
    cost, mapping = part.solution.cost, part.solution.mapping
    return {
        "repeat": part.part.repeat,
        "kept": {"tensor": part.part.kept, "level": part.kept_at} if part.kept_at else None,
        "extra_pj": part.extra_pj,
        "extra_cycles": part.extra_cycles,
        "value": part.solution.value,
        "gap": part.solution.gap,
        "cycles": cost.cycles,
        "compute_cycles": cost.compute_cycles,
        "limit": cost.limit,
        "utilization": cost.utilization,
        "energy_pj": cost.energy_pj,
        "mac_energy_pj": cost.mac_energy_pj,
        "temporal": [
            {"level": level.level, "loops": [list(loop) for loop in level.loops], "bypass": sorted(level.bypass)}
            for level in mapping.temporal
        ],
        "spatial": {axis: [list(loop) for loop in loops] for axis, loops in mapping.spatial.items()},
        "traffic": [
            {
                "level": item.level, "tensor": item.tensor, "role": item.role, "tile_words": item.tile_words,
                "instances": item.instances, "reads": item.reads, "fills": item.fills, "updates": item.updates,
                "energy_pj": item.energy_pj,
            }
            for item in cost.traffic
        ],
    }  # fmt: skip


def _residency(result: NetworkMapping) -> dict[str, Any] | None:
    if result.plan is None or result.alone is None or result.resting is None:
        return None
    plan, levels = result.plan, result.resting.resting
    return {
        "exact": result.resting.exact,
        "weights_stay_in": result.resting.pinned or None,
        "value": result.resting.value,
        "bound": result.resting.bound,
        "without": _totals(result.alone),
        "with": _totals(result.resting),
        "resting": [
            {
                "value": name, "level": level, "bytes": room_of_value(plan.values[name], result.arch),
                "from": plan.steps[plan.values[name].first].op, "to": plan.steps[plan.values[name].last].op,
            }
            for name, level in levels.items()
        ],
        "steps": [
            {
                "op": step.step.op, "kind": step.step.kind, "resident": step.resident, "energy_pj": step.energy_pj,
                "cycles": step.cycles, "outer_bits": step.bits, "parts": [_part(part) for part in step.parts],
            }
            for step in result.resting.steps
        ],
    }  # fmt: skip


def _totals(residency: Residency) -> dict[str, float]:
    return {"energy_pj": residency.energy_pj, "cycles": residency.cycles, "outer_bits": residency.bits}
