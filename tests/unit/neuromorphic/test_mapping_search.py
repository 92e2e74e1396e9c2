"""The mapping search: plans, placements, what binds; and that it beats layer blocks at fixed hardware."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import pytest

from accelerators.neuromorphic import NeuromorphicAccelerator
from accelerators.neuromorphic.binding import binding_core, binding_text, busiest_link
from accelerators.neuromorphic.blocks import ORDERS, BlockPlan, plan_mapping
from accelerators.neuromorphic.build import Precision, build_network
from accelerators.neuromorphic.hardware import NeuromorphicHardware
from accelerators.neuromorphic.mapper import edp_of, judge, search_mapping
from accelerators.neuromorphic.mapping import check_mapping, fitting_plan, message_table
from accelerators.neuromorphic.placement import PLACEMENTS, hilbert_index, place_plan
from accelerators.neuromorphic.prepared import Stimulus
from accelerators.neuromorphic.recost import Recoster
from accelerators.neuromorphic.simulate import compile_network, run_network
from dse.backend import Decisions
from dse.core.errors import UsageError
from dse.ir import Graph, Op, Tensor

FAMILY = NeuromorphicAccelerator()


def conv_graph(side: int, channels: tuple[int, ...], threshold: float = 0.93) -> Graph:
    """3 x 3 convolutions of leaky neurons over side x side events, random weights."""
    rng = np.random.default_rng(0)
    tensors: dict[str, Tensor] = {"x": Tensor("x", (1, 1, side, side))}
    ops: list[Op] = []
    source, inside = "x", 1
    for index, outside in enumerate(channels):
        name, shape = f"conv{index}", (1, outside, side, side)
        weight = rng.normal(0.12, 1.0, (outside, inside, 3, 3)) / math.sqrt(9 * inside)
        tensors |= {f"{name}.w": Tensor(f"{name}.w", weight.shape, data=weight.astype(np.float32)),
                    name: Tensor(name, shape), f"{name}.s": Tensor(f"{name}.s", shape)}  # fmt: skip
        attributes = {"strides": (1, 1), "pads": (1, 1, 1, 1), "dilations": (1, 1), "groups": 1, "activation": "none"}
        ops.append(Op(name, "conv", (source, f"{name}.w"), (name,), attributes))
        names = []
        for key, value in (("keep", 0.9), ("gain", 1.0), ("offset", 0.0), ("threshold", threshold), ("reset", 0.0)):
            names.append(f"{name}.{key}")
            tensors[names[-1]] = Tensor(names[-1], shape[1:], data=np.full(shape[1:], value, np.float32))
        ops.append(Op(f"{name}.lif", "neuron", (name, *names), (f"{name}.s",), {}))
        source, inside = f"{name}.s", outside
    return Graph("convs", tensors, tuple(ops), ("x",), (source,))


def recoster_of(graph: Graph, hw: NeuromorphicHardware, steps: int = 12) -> Recoster:
    compiled = compile_network(build_network(graph, Precision(weight_bits=hw.weight_bits)))
    return Recoster(compiled, run_network(compiled, Stimulus(steps, 0.1).inputs(compiled.network)), hw)


def loihi(**changes: Any) -> NeuromorphicHardware:
    return NeuromorphicHardware(**{**FAMILY.presets()["loihi"], "axons_in": 16384, "axons_out": 65536, **changes})


def test_a_search_beats_layer_blocks_by_a_third_on_ten_thousand_neurons_at_fixed_hardware() -> None:
    hw = loihi()
    recoster = recoster_of(conv_graph(20, (8, 12, 8)), hw)
    assert recoster.network.neurons >= 10_000
    start = fitting_plan(recoster.network, recoster.compiled, hw)
    blocks = edp_of(judge(recoster, start), 0.0)
    found = search_mapping(recoster, start, 60)
    assert found.edp == edp_of(judge(recoster, found.plan), 0.0)
    assert blocks / found.edp >= 1.3
    mapping = plan_mapping(recoster.network, found.plan)
    assert not check_mapping(recoster.network, mapping, message_table(recoster.compiled, mapping, hw.cores), hw)


def test_a_search_is_the_same_every_time_and_never_worse_than_its_start() -> None:
    hw = loihi(mesh_columns=3, mesh_rows=2, cores_per_tile=2)
    recoster = recoster_of(conv_graph(8, (4, 4)), hw, 6)
    for order in ORDERS:
        start = fitting_plan(recoster.network, recoster.compiled, hw, order)
        one, two = (search_mapping(recoster, start, 25, placement="best", seed=3) for _ in range(2))
        assert one == two
        assert one.edp <= edp_of(judge(recoster, start), 0.0)


@pytest.mark.parametrize("placement", PLACEMENTS)
def test_placements_give_each_slice_a_core_of_its_own(placement: str) -> None:
    hw = loihi(mesh_columns=5, mesh_rows=3, cores_per_tile=2)
    recoster = recoster_of(conv_graph(8, (4, 6)), hw, 4)
    plan = place_plan(BlockPlan((5, 8), ("channel", "spatial")), placement, recoster)
    assert len(set(plan.where.tolist())) == 13
    assert plan.where.min() >= 0
    assert plan.where.max() < hw.cores
    held = np.bincount(plan_mapping(recoster.network, plan).core, minlength=hw.cores)
    assert (held > 0).sum() == 13


def test_placing_by_traffic_saves_hops() -> None:
    hw = loihi(mesh_columns=6, mesh_rows=6, cores_per_tile=1)
    recoster = recoster_of(conv_graph(8, (4, 6, 4)), hw, 6)
    plan = BlockPlan((10, 12, 10), ("spatial",) * 3)
    hops = {}
    for placement in PLACEMENTS:
        counts = recoster.price(place_plan(plan, placement, recoster)).counts
        hops[placement] = counts["hop_east_west"] + counts["hop_north_south"]
    assert hops["traffic"] < min(hops[name] for name in PLACEMENTS if name != "traffic")


@pytest.mark.parametrize("side", [1, 2, 8, 16])
def test_a_hilbert_curve_visits_every_place_once_step_by_step(side: int) -> None:
    places = sorted((hilbert_index(side, x, y), x, y) for x in range(side) for y in range(side))
    assert [index for index, _, _ in places] == list(range(side * side))
    for (_, x, y), (_, other_x, other_y) in itertools.pairwise(places):
        assert abs(x - other_x) + abs(y - other_y) == 1


def test_what_binds_is_named_by_core_layer_and_link() -> None:
    hw = loihi(mesh_columns=4, mesh_rows=1, cores_per_tile=1)
    recoster = recoster_of(conv_graph(8, (4, 6)), hw, 6)
    plan = BlockPlan((1, 1), ("channel", "channel"), (0, 3))
    cost = judge(recoster, plan)
    text = binding_text(cost, recoster.network, plan_mapping(recoster.network, plan), hw)
    assert binding_core(cost) in (0, 3)
    # all messages go from tile 0 to tile 3, three links to the east
    link = busiest_link(cost, hw)
    assert link is not None
    assert link[1:] == ("east", cost.counts["axon_out"])
    layer = "conv1.s" if binding_core(cost) else "conv0.s"
    assert f"core {binding_core(cost)} ({layer}) ends" in text
    assert f"busiest link: tile (0, 0) east, {cost.counts['axon_out']:,} messages" in text


def test_decisions_choose_the_mapping() -> None:
    graph = conv_graph(8, (4, 6))
    hw = loihi(mesh_columns=4, mesh_rows=4, cores_per_tile=1)
    base = {"time_steps": 6, "spread": 4.0}
    executables = {
        name: FAMILY.lower(graph, hw, Decisions({**base, **choice}))
        for name, choice in {
            "order": {}, "hilbert": {"placement": "hilbert"}, "searched": {"mapping_moves": 20, "placement": "traffic"},
        }.items()
    }  # fmt: skip
    order, hilbert = (executables[name].mapping.core for name in ("order", "hilbert"))
    assert (order != hilbert).any()
    edp = {name: item.estimate().latency_ms * item.estimate().energy_uj for name, item in executables.items()}
    assert edp["searched"] < edp["order"]
    # one network, simulated once
    assert len({id(item.compiled) for item in executables.values()}) == 1
    assert "ends" in executables["order"].estimate().layers[0].mapping
    with pytest.raises(UsageError, match=r"decisions\.placement: 'diagonal' is not possible"):
        FAMILY.lower(graph, hw, Decisions({"placement": "diagonal"}))
    with pytest.raises(UsageError, match=r"decisions\.mapping_moves: 1\.5 is not a whole number"):
        FAMILY.lower(graph, hw, Decisions({"mapping_moves": 1.5}))
