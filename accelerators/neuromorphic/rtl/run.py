"""Simulates the mesh's RTL, cycle by cycle, in Amaranth's own simulator."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from amaranth.sim import Simulator

from accelerators.neuromorphic.rtl.mesh import Mesh
from accelerators.neuromorphic.rtl.shape import CoreShape, image_of
from accelerators.neuromorphic.semantics import NeuronState
from accelerators.neuromorphic.tables import CoreTables


@dataclass(frozen=True)
class MeshStep:
    """What the RTL of a mesh did in one step.

    Parameters
    ----------
    fired
        Neurons that fired, by core, in order.
    outputs
        Axons of the packets that left the mesh, in order.
    states
        Of every neuron after the step, by core.
    given_cycles, run_cycles
        Giving the step's events until the mesh is quiet; from `go` until it is quiet again.
    idle_after
        By core: cycles from `go` until it is idle.
    """

    fired: tuple[tuple[int, ...], ...]
    outputs: tuple[int, ...]
    states: tuple[tuple[NeuronState, ...], ...]
    given_cycles: int
    run_cycles: int
    idle_after: tuple[int, ...]


def run_mesh(
    cores: Sequence[CoreTables],
    shape: CoreShape,
    columns: int,
    rows: int,
    depth: int,
    given: Sequence[Sequence[tuple[int, int]]],
) -> list[MeshStep]:
    """The RTL of a mesh over (core, axon) events of every step; `depth`: packets a router's queue holds."""
    dut = Mesh(shape, [image_of(core, shape) for core in cores], columns, rows, depth)
    found: list[MeshStep] = []

    async def bench(ctx: Any) -> None:
        ctx.set(dut.outputs.ready, 1)
        await ctx.tick().until(dut.quiet)
        for events in given:
            before = await _give(ctx, dut, events)
            found.append(await _step(ctx, dut, cores, before))

    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(bench)
    simulator.run()
    return found


async def _give(ctx: Any, dut: Mesh, events: Sequence[tuple[int, int]]) -> int:
    """Give the events of a step; cycles until the mesh is quiet."""
    cycles = 0
    for core, axon in events:
        ctx.set(dut.events.payload, core << dut.shape.widths.axon | axon)
        ctx.set(dut.events.valid, 1)
        taken = False
        while not taken:
            taken = bool(ctx.get(dut.events.ready))
            await ctx.tick()
            cycles += 1
    ctx.set(dut.events.valid, 0)
    while not ctx.get(dut.quiet):
        await ctx.tick()
        cycles += 1
    return cycles


async def _step(ctx: Any, dut: Mesh, cores: Sequence[CoreTables], before: int) -> MeshStep:
    ctx.set(dut.go, 1)
    await ctx.tick()
    ctx.set(dut.go, 0)
    fired: list[list[int]] = [[] for _ in dut.cores]
    outputs, idle, cycles = [], [0] * len(dut.cores), 1
    while not ctx.get(dut.quiet):
        for number, core in enumerate(dut.cores):
            if ctx.get(core.fired):
                fired[number].append(ctx.get(core.neuron))
            if not idle[number] and ctx.get(core.idle):
                idle[number] = cycles
        if ctx.get(dut.outputs.valid):
            outputs.append(ctx.get(dut.outputs.payload) & ((1 << dut.shape.widths.axon) - 1))
        await ctx.tick()
        cycles += 1
    states = tuple(
        tuple(state_of(ctx.get(core.states.data[n]), dut.shape) for n in range(tables.neurons))
        for core, tables in zip(dut.cores, cores, strict=True)
    )
    return MeshStep(tuple(map(tuple, fired)), tuple(outputs), states, before, cycles, tuple(idle))


def state_of(word: int, shape: CoreShape) -> NeuronState:
    """A word of a core's state memory."""
    bits = shape.widths.state

    def signed(value: int) -> int:
        value &= (1 << bits) - 1
        return value - (1 << bits) if value >> (bits - 1) else value

    return NeuronState(signed(word), signed(word >> bits), word >> 2 * bits)
