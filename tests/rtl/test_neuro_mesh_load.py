"""A mesh under load: the cycle model against the RTL where queues fill, and what must hold for any traffic."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from accelerators.neuromorphic.blocks import NeuronMapping
from accelerators.neuromorphic.cost import cost_of
from accelerators.neuromorphic.emitted import MeshProgram, emitted_cost, mesh_program, mesh_timing
from accelerators.neuromorphic.hardware import NeuromorphicHardware
from accelerators.neuromorphic.mapping import message_table
from accelerators.neuromorphic.network import Csr, Input, Network, Population, Projection
from accelerators.neuromorphic.prices import prices_of
from accelerators.neuromorphic.rtl.mesh import QUIET_CYCLES
from accelerators.neuromorphic.rtl.mesh_cycles import LEAVES, NO_PACKET, mesh_cycles
from accelerators.neuromorphic.rtl.run import run_mesh
from accelerators.neuromorphic.simulate import Activity, compile_network, run_network
from dse.core.errors import InfeasibleError

STEPS = 4


def busy_network(neurons: int, inputs: int, seed: int) -> Network:
    """All to all, weights positive and thresholds low: nearly every neuron fires in every step."""
    rng = np.random.default_rng(seed)

    def full(sources: int, low: int, high: int) -> Csr:
        start = np.arange(sources + 1, dtype=np.int64) * neurons
        targets = np.tile(np.arange(neurons, dtype=np.int32), sources)
        return Csr(start, targets, rng.integers(low, high, sources * neurons).astype(np.int16))

    def each(value: int) -> np.ndarray:
        return np.full(neurons, value, np.int64)

    everyone = Population("p", (neurons,), 0, each(40), each(40), each(0), each(0), each(0), each(4096), True, 0, True,
                          0, np.ones(neurons))  # fmt: skip
    links = (Projection(0, 0, 0, full(inputs, 10, 40)), Projection(1, 0, 1, full(neurons, -2, 6)))
    return Network("busy", (Input("x", (inputs,), 0),), (everyone,), links, (("p", 0, 0),), 8, 16, 0)


def loaded(columns: int, rows: int, depth: int, seed: int) -> tuple[MeshProgram, Activity]:
    rng = np.random.default_rng(seed)
    network = busy_network(24, 4, seed)
    hw = NeuromorphicHardware(
        mesh_columns=columns, mesh_rows=rows, neurons_per_core=24, synapse_kib=2, axons_in=64, axons_out=256, lanes=2,
        profiles=2, state_bits=16, charge_bits=16, fraction_bits=0, link_buffer=depth, messages="emitted", max_delay=1,
    )  # fmt: skip
    mapping = NeuronMapping(rng.integers(0, hw.cores, network.neurons).astype(np.int32))
    drive = {"x": np.ones((STEPS, 4), np.int32)}
    return mesh_program(network, mapping, hw), run_network(compile_network(network), drive, STEPS)


@pytest.mark.parametrize(("columns", "rows", "depth"), [(2, 2, 2), (3, 2, 2), (4, 1, 3), (1, 4, 2)])
def test_full_queues_hold_cores_up_for_as_long_as_in_the_rtl(columns: int, rows: int, depth: int) -> None:
    program, activity = loaded(columns, rows, depth, 7)
    timing = mesh_timing(program, activity)
    found = run_mesh(program.configuration.cores, program.shape, columns, rows, depth, program.given(activity))
    assert timing.held_up.any()
    assert (timing.idle_after > timing.closed_form).any()
    for step, done in enumerate(found):
        assert list(done.idle_after) == timing.idle_after[step].tolist()
        assert (done.given_cycles, done.run_cycles) == (timing.given_cycles[step], timing.run_cycles[step])


def test_deeper_queues_hold_up_fewer_cores() -> None:
    held = []
    for depth in (2, 4, 16):
        program, activity = loaded(2, 2, depth, 3)
        held.append(int(mesh_timing(program, activity).held_up.sum()))
    assert held[0] >= held[1] >= held[2]
    assert held[0] > held[2]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 100_000))
def test_every_packet_takes_its_way_in_a_bounded_time(seed: int) -> None:
    """Packets over links are hops along X, then Y; no step is shorter than its slowest core or its most used link."""
    rng = np.random.default_rng(seed)
    columns, rows, depth = int(rng.integers(1, 5)), int(rng.integers(1, 5)), int(rng.integers(2, 6))
    cores = columns * rows
    counts = rng.integers(0, 25, cores)
    units = [rng.choice([NO_PACKET, LEAVES, *range(cores)], count) for count in counts]
    given_to = rng.integers(0, cores, int(rng.integers(0, 12)))
    emit_at = rng.integers(5, 40, (1, cores))
    links = np.zeros((cores, 4), np.int64)
    spent, idle, held = mesh_cycles(
        columns, rows, depth, 1, np.array([0, len(given_to)]), given_to, emit_at, np.cumsum([0, *counts]),
        np.concatenate([*units, np.zeros(0, np.int64)]).astype(np.int64), links,
    )  # fmt: skip
    hops = sum(int(core) % columns + int(core) // columns for core in given_to)
    leaving = 0
    for source, walk in enumerate(units):
        x, y = source % columns, source // columns
        for goal in walk:
            if goal == LEAVES:
                hops, leaving = hops + x + y, leaving + 1
            elif goal != NO_PACKET:
                hops += abs(goal % columns - x) + abs(goal // columns - y)
    assert links.sum() == hops + leaving  # the door's west link takes what leaves
    assert links[0, 3] >= leaving
    floor = emit_at + np.maximum(counts, 0)
    assert (idle >= floor).all()
    assert spent[0, 1] >= idle.max() + QUIET_CYCLES
    assert spent[0, 1] >= links.max() + QUIET_CYCLES
    assert spent[0, 0] >= (len(given_to) + QUIET_CYCLES if len(given_to) else 0)
    assert spent[0, 1] < emit_at.max() + 40 + 12 * (hops + leaving + int(counts.sum()) + 1)
    assert not held[0, counts == 0].any()


def test_priced_time_is_the_meshs_and_a_tick_waits_for_whoever_gives_it() -> None:
    program, activity = loaded(2, 2, 4, 1)
    hw, network = program.hw, program.network
    compiled = compile_network(network)
    core = np.array([place for place, _ in program.configuration.local], np.int32)
    # a mesh numbers cores row by row, a chip column by column: cores 1 and 2 of 2 x 2 change places
    mapping = NeuronMapping(np.array([0, 2, 1, 3], np.int32)[core])
    table, prices = message_table(compiled, mapping, hw.cores), prices_of(hw)
    timing = mesh_timing(program, activity)
    plain = cost_of(network, activity, mapping, table, hw, prices)
    cost = emitted_cost(plain, program, activity)
    assert cost.step_ps.tolist() == (timing.cycles * round(1e6 / hw.clock_mhz)).tolist()
    assert cost.energy_fj == plain.energy_fj
    assert cost.binding_core.sum() == STEPS
    inside = cost.link_messages.sum() - timing.link_packets[0, 3]
    events = sum(sum(divmod(goal, 2)) for step in program.given(activity) for goal, _ in step)
    outwards = sum(sum(divmod(core[n], 2)) for n in activity.spikes)
    assert inside == plain.counts["hop_east_west"] + plain.counts["hop_north_south"] + events + outwards
    slow = replace(program, hw=hw.model_copy(update={"synchronization": "tick", "tick_us": 20.0}))
    ticked = emitted_cost(plain, slow, activity)
    assert ticked.step_ps.tolist() == [max(20_000_000, int(step)) for step in cost.step_ps]


def test_spikes_that_take_longer_than_a_step_are_refused_with_the_delay() -> None:
    network = busy_network(8, 2, 0)
    late = replace(network, projections=(network.projections[0], replace(network.projections[1], delay=3)))
    hw = NeuromorphicHardware(mesh_columns=1, mesh_rows=1, profiles=2)
    with pytest.raises(InfeasibleError, match="delay of a spike on the RTL: 3 steps against a bound of 1 steps"):
        mesh_program(late, NeuronMapping(np.zeros(8, np.int32)), hw)
    # an event from outside may wait: whoever gives it holds it back
    waiting = replace(network, projections=(replace(network.projections[0], delay=2), network.projections[1]))
    program = mesh_program(waiting, NeuronMapping(np.zeros(8, np.int32)), hw)
    activity = run_network(compile_network(waiting), {"x": np.ones((1, 2), np.int32)}, 5)
    assert [len(step) for step in program.given(activity)] == [0, 0, 2, 0, 0]
