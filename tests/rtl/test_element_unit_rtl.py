# amaranth: UnusedElaboratable=no
"""SCALE, ELEMENT and POOL on the hardware: memories of the interpreter bit for bit, cycles of the closed forms."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from amaranth.sim import Simulator

from dse.ir.requantize import encode_scale
from dse.program.tile.encode import encode_descriptor
from dse.program.tile.footprint import descriptor_problems
from dse.program.tile.isa import PARAMETER_BYTES, Descriptor, MemoryId, Opcode, fields
from dse.program.tile.isa_element import DESTINATIONS, SOURCES, TABLE_BYTES, Function
from dse.program.tile.kernels import kernel
from dse.program.tile.pads import Scratchpads
from dse.program.tile.program import Machine
from dse.program.tile.timing_element import element_cycles
from dse.rtl.dma import table_line_bytes
from dse.rtl.interfaces import READ_LATENCY
from dse.rtl.vector_unit import VectorUnit

WORDS, TABLES = 96, 4
#: Ports of the unit by memory.
READ_PORTS = {MemoryId.ACCUMULATOR: "acc", MemoryId.PARAMETER: "param", MemoryId.RESIDUAL: "res",
              MemoryId.OUTPUT: "out_read", MemoryId.STATE: "state_read"}  # fmt: skip
WRITE_PORTS = {MemoryId.ACCUMULATOR: "acc_write", MemoryId.ACTIVATION: "act", MemoryId.OUTPUT: "out",
               MemoryId.STATE: "state"}  # fmt: skip
_WORD = {MemoryId.ACCUMULATOR: 4, MemoryId.STATE: 2}


def machine_of(rows: int, columns: int, lanes: int, mode: str, beat_bytes: int = 4) -> Machine:
    word_bytes = {
        MemoryId.ACTIVATION: rows, MemoryId.WEIGHT: columns, MemoryId.PARAMETER: PARAMETER_BYTES * lanes,
        MemoryId.RESIDUAL: columns, MemoryId.ACCUMULATOR: 4 * columns, MemoryId.OUTPUT: columns,
        MemoryId.STATE: 2 * columns, MemoryId.TABLE: TABLE_BYTES,
    }  # fmt: skip
    words = dict.fromkeys(MemoryId, WORDS) | {MemoryId.TABLE: TABLES, MemoryId.ACTIVATION: 4 * WORDS}
    return Machine(rows, columns, "ws", 8, lanes, mode, beat_bytes, 4, words, word_bytes, 16)


def random_pads(m: Machine, rng: np.random.Generator) -> Scratchpads:
    """Accumulators and states of every magnitude, channel parameters that bring sums near int16."""
    pads = Scratchpads.fresh(m, rng)
    acc = pads.accumulators()
    acc[:] = rng.integers(-(2**31), 2**31, acc.shape) >> rng.integers(0, 30, (len(acc), 1))
    state = pads.bytes[MemoryId.STATE].view("<i2")
    state[:] = rng.integers(-(2**15), 2**15, state.shape) >> rng.integers(0, 15, (len(state), 1))
    table = np.zeros(WORDS * m.vector_lanes, np.dtype([("bias", "<i4"), ("multiplier", "<u4"), ("shift", "i1")]))
    multiplier, shift = encode_scale(2.0 ** rng.uniform(-24, 0, len(table)), m.requantize)
    table["bias"], table["multiplier"], table["shift"] = rng.integers(-9999, 9999, len(table)), multiplier, shift
    pads.bytes[MemoryId.PARAMETER][:] = table.view(np.uint8).reshape(WORDS, -1)
    return pads


def random_element(rng: np.random.Generator) -> dict[str, int]:
    """Every function, memory, spread, rounding; products that wrap and shifts from none to all."""
    function = Function(int(rng.integers(0, 8)))
    updates = function in (Function.MULADD, Function.MULSUB)
    into = int(rng.choice([m for m in DESTINATIONS if not updates or m != MemoryId.ACTIVATION]))
    values = {
        "function": function, "a_memory": int(rng.choice(SOURCES)), "b_memory": int(rng.choice(SOURCES)),
        "dst_memory": into, "a_spread": int(rng.integers(0, 4)), "b_spread": int(rng.integers(0, 4)),
        "zero_a": int(rng.choice([0, 32768, -65536, -7])), "zero_b": int(rng.integers(-256, 256)),
        "multiplier_a": int(rng.integers(0, 2 ** int(rng.integers(1, 25)))),
        "multiplier_b": int(rng.integers(0, 2 ** int(rng.integers(1, 25)))),
        "shift": int(rng.choice([0, 1, 7, 15, 16, 24, 40, 62])), "rounding": int(rng.integers(0, 3)),
        "zero_point": int(rng.integers(-256, 256)), "narrow": int(rng.random() < 0.3),
        "look_up": int(rng.random() < 0.3), "table_base": int(rng.integers(0, TABLES)),
    }  # fmt: skip
    if rng.random() < 0.4 and into != MemoryId.ACTIVATION:
        # word for word in place
        values |= {"a_memory": into, "a_spread": 0, "a_base": 50, "dst_base": 50}
    return values


def random_descriptor(rng: np.random.Generator, op: Opcode) -> Descriptor:
    """Sources below word 50, destinations from there on, every operand within its memory."""
    values = {"n_blocks": int(rng.integers(1, 4)), "dst_base": int(rng.integers(50, 60))}
    values |= {f"{name}_base": int(rng.integers(0, 30)) for name in ("a", "b", "acc", "param")}
    if op == Opcode.SCALE:
        low, high = sorted(int(v) for v in rng.integers(-(2**15), 2**15, 2))
        values |= {
            "rows_count": int(rng.integers(1, 6)), "dst_memory": int(rng.choice(DESTINATIONS)),
            "zero_point": int(rng.integers(-300, 300)), "low": low if rng.random() < 0.4 else -(2**15),
            "high": high if rng.random() < 0.4 else 2**15 - 1, "look_up": int(rng.random() < 0.4),
            "table_base": int(rng.integers(0, TABLES)),
        }  # fmt: skip
    elif op == Opcode.ELEMENT:
        values |= {"rows_count": int(rng.integers(1, 6))} | random_element(rng)
    else:
        values |= {f"a_stride_{dim}": int(rng.integers(0, 4)) for dim in ("n", "r", "s", "y", "x")}
        values |= {f"{name}": int(rng.integers(1, 4)) for name in ("height", "width", "kernel_rows", "kernel_columns")}
        values |= {
            "a_memory": int(rng.choice(SOURCES)), "dst_memory": int(rng.choice(DESTINATIONS)),
            "function": int(rng.integers(0, 2)), "zero_a": int(rng.integers(-256, 256)),
            "multiplier_a": int(rng.integers(1, 2**24)), "shift": int(rng.integers(0, 40)),
            "rounding": int(rng.integers(0, 3)), "zero_point": int(rng.integers(-256, 256)),
        }  # fmt: skip
    known = {item.name for item in fields(op)}
    return Descriptor(op, {name: int(value) for name, value in values.items() if name in known})


class _Bench:
    """The unit with its memories played in Python: reads two cycles late, writes under their enables."""

    def __init__(self, m: Machine, pads: Scratchpads) -> None:
        self.machine, self.pads, self.unit = m, pads, VectorUnit(m)
        self.durations: list[int] = []

    def run(self, descriptors: list[Descriptor]) -> list[dict[MemoryId, np.ndarray]]:
        """Memories after each descriptor."""
        seen: list[dict[MemoryId, np.ndarray]] = []

        async def drive(ctx: Any) -> None:
            await self._fill_tables(ctx)
            for d in descriptors:
                await self._execute(ctx, d)
                seen.append({memory: self.pads.bytes[memory].copy() for memory in WRITE_PORTS})

        simulator = Simulator(self.unit)
        simulator.add_clock(1e-6)
        simulator.add_testbench(drive)
        simulator.run()
        return seen

    async def _fill_tables(self, ctx: Any) -> None:
        port, line = self.unit.table, table_line_bytes(self.machine)
        for number, values in enumerate(self.pads.bytes[MemoryId.TABLE].reshape(-1, line)):
            ctx.set(port.en, (1 << line) - 1)
            ctx.set(port.addr, number)
            ctx.set(port.data, int.from_bytes(values.tobytes(), "little"))
            await ctx.tick()
        ctx.set(port.en, 0)

    async def _execute(self, ctx: Any, d: Descriptor) -> None:
        unit, control = self.unit, self.unit.control
        ctx.set(control.descriptor, encode_descriptor(d))
        names = {Opcode.SCALE: ("acc", "dst", "param"), Opcode.ELEMENT: ("a", "b", "dst"), Opcode.POOL: ("a", "dst")}
        for index, name in enumerate(names[d.op]):
            ctx.set(control.address[index], d[f"{name}_base"])
        await ctx.tick().repeat(3)  # the descriptor stands long before its start
        coming = {memory: [0] * READ_LATENCY for memory in READ_PORTS}
        cycle, done = 0, False
        while not done:
            ctx.set(control.start, cycle == 0)
            for memory, name in READ_PORTS.items():
                port = getattr(unit, name)
                ctx.set(port.data, coming[memory].pop(0))
                word = self.pads.bytes[memory][ctx.get(port.addr)].tobytes() if ctx.get(port.en) else b""
                coming[memory].append(int.from_bytes(word, "little"))
            for memory, name in WRITE_PORTS.items():
                self._write(ctx, memory, getattr(unit, name))
            done = bool(ctx.get(control.done))
            await ctx.tick()
            cycle += 1
            assert cycle < 5000, "the unit never ends"
        self.durations.append(cycle - 1)

    def _write(self, ctx: Any, memory: MemoryId, port: Any) -> None:
        enable, data = ctx.get(port.en), ctx.get(port.data)
        size = self.machine.word_bytes[memory]
        granule = size // len(port.en)
        word = data.to_bytes(size, "little")
        for part in range(len(port.en)):
            if enable >> part & 1:
                where = slice(part * granule, (part + 1) * granule)
                self.pads.bytes[memory][ctx.get(port.addr), where] = np.frombuffer(word[where], np.uint8)


def executed(d: Descriptor, pads: Scratchpads) -> None:
    """What the interpreter makes of a descriptor at its own base addresses."""
    addresses = {name: d[f"{name}_base"] for name in ("acc", "a", "b", "dst", "param")}
    kernel(d, pads, np.zeros(0, np.uint8))(addresses)


SHAPES = [(4, 4, 2), (4, 4, 1), (3, 4, 4), (4, 6, 3), (8, 4, 4), (5, 3, 3), (6, 8, 4), (2, 2, 2)]


@pytest.mark.parametrize("op", [Opcode.SCALE, Opcode.ELEMENT, Opcode.POOL], ids=lambda op: op.name)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_random_descriptors_leave_the_interpreters_memories_in_the_predicted_cycles(
    shape: tuple[int, int, int], op: Opcode
) -> None:
    rng = np.random.default_rng(100 * int(op) + sum(shape))
    m = machine_of(*shape, mode=str(rng.choice(["ort", "q31"])), beat_bytes=int(rng.choice([1, 2, 8])))
    wanted_pads = random_pads(m, rng)
    copy = Scratchpads(m, {memory: data.copy() for memory, data in wanted_pads.bytes.items()})
    bench = _Bench(m, copy)
    descriptors = [random_descriptor(rng, op) for _ in range(12)]
    for d in descriptors:
        assert descriptor_problems(d, "vector", m) == []
    found = bench.run(descriptors)
    for d, memories in zip(descriptors, found, strict=True):
        executed(d, wanted_pads)
        for memory, data in memories.items():
            np.testing.assert_array_equal(data, wanted_pads.bytes[memory], err_msg=f"{memory.name} after {d}")
    assert bench.durations == [element_cycles(d, m) for d in descriptors]
