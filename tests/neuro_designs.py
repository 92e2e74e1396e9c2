"""Random tables of neuromorphic cores, and their RTL run step by step."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from amaranth.sim import Simulator

from accelerators.neuromorphic.rtl.core import NeuroCore
from accelerators.neuromorphic.rtl.mesh import Mesh
from accelerators.neuromorphic.rtl.shape import CoreShape, image_of, shape_of
from accelerators.neuromorphic.semantics import NeuronProfile, NeuronState, state_range
from accelerators.neuromorphic.tables import OUTSIDE, CoreTables, pack_rows


@dataclass(frozen=True)
class Bits:
    """Widths that the tables do not tell."""

    state: int
    weight: int
    fraction: int


def random_tables(rng, neurons, axons, lanes, layout, bits, fanout=None, highest_threshold=None):
    """One core's tables: any profile, synapses of any density; packets as `fanout` says, or any to the outside.

    `fanout` lists for every neuron its (core, axon) pairs.
    """
    low, high = state_range(bits.weight)
    highest = highest_threshold or 1 << (bits.state - 4)
    profiles = tuple(
        NeuronProfile(
            threshold=int(rng.integers(1, highest)),
            reset=int(rng.integers(0, 40)),
            subtract=bool(rng.integers(2)),
            keep_current=int(rng.integers(0, 4097)) if rng.random() < 0.5 else 0,
            keep_voltage=int(rng.integers(2000, 4097)),
            refractory=int(rng.integers(0, 3)),
        )
        for _ in range(3)
    )
    rows = []
    for _ in range(axons):
        targets = rng.choice(neurons, size=int(rng.integers(0, neurons + 1)), replace=False)
        rows.append([(int(target), int(rng.integers(low, high + 1))) for target in targets])
    if fanout is None:
        fanout = [[(OUTSIDE, int(rng.integers(0, axons))) for _ in range(rng.integers(0, 3))] for _ in range(neurons)]
    packets = [packet for pairs in fanout for packet in pairs]
    integer = np.int32
    return CoreTables(
        lanes, layout, profiles,
        rng.integers(0, 3, neurons).astype(integer),
        rng.integers(-5, 20, neurons).astype(integer),
        rng.integers(0, 9, neurons).astype(integer),
        rng.integers(0, 3, neurons).astype(integer),
        *pack_rows(rows, lanes, layout),
        np.cumsum([0, *map(len, fanout)]).astype(integer),
        np.array([core for core, _ in packets], integer), np.array([axon for _, axon in packets], integer),
        np.ones(len(packets), integer),
    )  # fmt: skip


def random_mesh(rng, count, lanes, bits, outside_axons=2):
    """Tables of `count` cores that send to each other and to the outside, an axon for every (source, core)."""
    sizes = [lanes * int(rng.integers(2, 6)) for _ in range(count)]
    axons = [outside_axons] * count
    outputs = 0
    fanouts = []
    for neurons in sizes:
        fanout = []
        for _ in range(neurons):
            pairs = []
            for goal in rng.choice(np.arange(-1, count), size=int(rng.integers(0, 3)), replace=False):
                if goal == OUTSIDE:
                    pairs.append((OUTSIDE, outputs))
                    outputs += 1
                else:
                    pairs.append((int(goal), axons[goal]))
                    axons[goal] += 1
            fanout.append(pairs)
        fanouts.append(fanout)
    return [
        random_tables(rng, sizes[c], axons[c], lanes, "sparse", bits, fanouts[c], highest_threshold=40)
        for c in range(count)
    ]


@dataclass
class CoreStep:
    """What the RTL did in one step: neurons that fired, axons of the packets sent, states after, cycles."""

    fired: list[int]
    packets: list[int]
    states: list[NeuronState]
    cycles: int


def run_core(tables: CoreTables, bits: Bits, steps) -> tuple[CoreShape, list[CoreStep]]:
    """The RTL of one core over the events of every step, its packets always taken."""
    shape = shape_of([tables], bits.state, bits.weight, bits.fraction)
    dut = NeuroCore(shape, image_of(tables, shape))
    found: list[CoreStep] = []
    axon_mask = (1 << shape.widths.axon) - 1

    async def bench(ctx):
        ctx.set(dut.outgoing.ready, 1)
        for events in steps:
            for axon in events:
                ctx.set(dut.incoming.valid, 1)
                ctx.set(dut.incoming.payload, axon)
                await ctx.tick()
            ctx.set(dut.incoming.valid, 0)
            ctx.set(dut.go, 1)
            await ctx.tick()
            ctx.set(dut.go, 0)
            step = CoreStep([], [], [], 1)
            while not ctx.get(dut.idle):
                if ctx.get(dut.fired):
                    step.fired.append(ctx.get(dut.neuron))
                if ctx.get(dut.outgoing.valid):
                    step.packets.append(ctx.get(dut.outgoing.payload) & axon_mask)
                await ctx.tick()
                step.cycles += 1
            step.states = [unpacked(ctx.get(dut.states.data[n]), shape) for n in range(tables.neurons)]
            found.append(step)

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return shape, found


def run_mesh(cores, bits: Bits, columns, rows, steps):
    """The RTL of a mesh over (core, axon) events of every step: packets to the outside, and states of every core."""
    shape = shape_of(cores, bits.state, bits.weight, bits.fraction)
    dut = Mesh(shape, [image_of(core, shape) for core in cores], columns, rows)
    widths = shape.widths
    found = []

    async def quiet(ctx, out):
        while not ctx.get(dut.quiet):
            if ctx.get(dut.outputs.valid):
                out.append(ctx.get(dut.outputs.payload) & ((1 << widths.axon) - 1))
            await ctx.tick()

    async def bench(ctx):
        ctx.set(dut.outputs.ready, 1)
        ignored = []
        await quiet(ctx, ignored)
        for events in steps:
            for core, axon in events:
                ctx.set(dut.events.payload, core << widths.axon | axon)
                ctx.set(dut.events.valid, 1)
                await ctx.tick().until(dut.events.ready)
            ctx.set(dut.events.valid, 0)
            await quiet(ctx, ignored)
            out = []
            ctx.set(dut.go, 1)
            await ctx.tick()
            ctx.set(dut.go, 0)
            await quiet(ctx, out)
            states = [
                [unpacked(ctx.get(core.states.data[n]), shape) for n in range(tables.neurons)]
                for core, tables in zip(dut.cores, cores, strict=True)
            ]
            found.append((out, states))
        assert not ignored

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return found


def unpacked(word: int, shape: CoreShape) -> NeuronState:
    """A word of the state memory."""
    bits = shape.widths.state

    def signed(value: int) -> int:
        value &= (1 << bits) - 1
        return value - (1 << bits) if value >> (bits - 1) else value

    return NeuronState(signed(word), signed(word >> bits), word >> 2 * bits)
