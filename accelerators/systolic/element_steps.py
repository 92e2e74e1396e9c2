"""Steps that only the element unit works on: rows (`attention`) and maps (`maps`), by one name for `lower`."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from accelerators.systolic.attention import VectorLayer, vector_layer
from accelerators.systolic.attention_lower import VectorCode, plan_vector, vector_step, write_vector
from accelerators.systolic.hardware import SystolicHardware
from accelerators.systolic.maps import MapLayer, map_layer
from accelerators.systolic.maps_lower import MapCode, map_step, plan_map, write_map
from accelerators.systolic.partition import VectorRule
from dse.ir import Graph
from dse.program.tile.program import Machine, TensorPlacement, TileStep

ElementLayer = VectorLayer | MapLayer


def element_rule(graph: Graph, hw: SystolicHardware, machine: Machine, *, fixed_point: bool) -> VectorRule | None:
    """What the element unit of a design computes; None for a design without one."""
    if hw.state_kib <= 0:
        return None
    return lambda op, source: (
        vector_layer(graph, op, source, hw.requantize, fixed_point=fixed_point) or map_layer(graph, op, source, machine)
    )


def plan_element(item: ElementLayer, machine: Machine, take: Callable[[str, str, int], int]) -> VectorCode | MapCode:
    """Addresses for a step's constants from `take` (name, what, bytes).

    Raises
    ------
    InfeasibleError: a row does not fit on chip.
    """
    return plan_map(item, machine, take) if isinstance(item, MapLayer) else plan_vector(item, machine, take)


def element_step(
    code: VectorCode | MapCode,
    graph: Graph,
    placements: Mapping[str, TensorPlacement],
    index: int,
    *,
    quantized: bool,
) -> TileStep:
    """The step of a planned item; a graph of shapes gives its time only."""
    if isinstance(code, MapCode):
        return map_step(code, graph, placements, index)
    return vector_step(code, graph, placements, index, quantized=quantized)


def write_element(memory: npt.NDArray[np.uint8], code: VectorCode | MapCode, graph: Graph) -> None:
    """Write a step's constants into a memory image."""
    if isinstance(code, MapCode):
        write_map(memory, code, graph)
    else:
        write_vector(memory, code, graph)
