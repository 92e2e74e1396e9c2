"""Scratchpads: two-cycle reads, write visibility, write enables, banks."""

from __future__ import annotations

import gc
import random
from collections.abc import Callable
from typing import Any

import pytest
from amaranth.sim import Simulator

from dse.core.errors import InfeasibleError
from dse.rtl.interfaces import READ_LATENCY
from dse.rtl.memory import BankedScratchpad, Scratchpad


def simulate(dut: Any, drive: Callable[[Any], Any]) -> None:
    simulator = Simulator(dut)
    simulator.add_clock(1e-6)
    simulator.add_testbench(drive)
    simulator.run()


@pytest.mark.parametrize(("words", "width", "granularity"), [(5, 24, 8), (16, 32, 16), (1, 7, None), (12, 8, 8)])
def test_scratchpad_equals_an_array_read_two_cycles_late(words: int, width: int, granularity: int | None) -> None:
    dut = Scratchpad(words, width, granularity)
    lane_bits = granularity or width
    lanes = width // lane_bits
    rng = random.Random(words * width)
    contents = [0] * words
    pending: list[int | None] = [None] * READ_LATENCY
    checked = 0

    async def drive(ctx: Any) -> None:
        nonlocal checked
        for _ in range(400):
            expected = pending.pop(0)
            if expected is not None:
                assert ctx.get(dut.read.data) == expected
                checked += 1
            read, address = rng.random() < 0.7, rng.randrange(words)
            # Often the word written in this cycle: the read must still see the old one.
            write_address = address if rng.random() < 0.3 else rng.randrange(words)
            enables, value = rng.getrandbits(lanes), rng.getrandbits(width)
            ctx.set(dut.read.en, read)
            ctx.set(dut.read.addr, address)
            ctx.set(dut.write.en, enables)
            ctx.set(dut.write.addr, write_address)
            ctx.set(dut.write.data, value)
            pending.append(contents[address] if read else None)
            mask = sum(((1 << lane_bits) - 1) << lane_bits * i for i in range(lanes) if enables >> i & 1)
            contents[write_address] = contents[write_address] & ~mask | value & mask
            await ctx.tick()

    simulate(dut, drive)
    assert checked > 200


@pytest.mark.parametrize("words", [2, 10, 16, 36])
def test_banks_serve_both_readers_and_the_writer_in_the_same_cycle(words: int) -> None:
    dut = BankedScratchpad(words, 16, ("matmul", "vector"), ("matmul",))
    rng = random.Random(words)
    contents = [0] * words
    pending: list[dict[str, int]] = [{} for _ in range(READ_LATENCY)]
    checked = {"matmul": 0, "vector": 0}

    async def drive(ctx: Any) -> None:
        for _ in range(400):
            for name, expected in pending.pop(0).items():
                assert ctx.get(getattr(dut, f"{name}_read").data) == expected, name
                checked[name] += 1
            bank = rng.randrange(2)
            due = {}
            for name, half in (("matmul", bank), ("vector", 1 - bank)):
                port = getattr(dut, f"{name}_read")
                reads, address = rng.random() < 0.8, half * (words // 2) + rng.randrange(words // 2)
                ctx.set(port.en, reads)
                ctx.set(port.addr, address)
                if reads:
                    due[name] = contents[address]
            pending.append(due)
            writes, address, value = rng.randrange(2), rng.randrange(words), rng.getrandbits(16)
            ctx.set(dut.matmul_write.en, writes)
            ctx.set(dut.matmul_write.addr, address)
            ctx.set(dut.matmul_write.data, value)
            if writes:
                contents[address] = value
            await ctx.tick()

    simulate(dut, drive)
    assert min(checked.values()) > 250


def test_matmul_wins_a_bank_that_both_readers_want() -> None:
    dut = BankedScratchpad(8, 8, ("matmul", "vector"), ("matmul",))

    async def drive(ctx: Any) -> None:
        for address in range(8):
            ctx.set(dut.matmul_write.en, 1)
            ctx.set(dut.matmul_write.addr, address)
            ctx.set(dut.matmul_write.data, 100 + address)
            await ctx.tick()
        for port, address in ((dut.matmul_read, 6), (dut.vector_read, 5)):
            ctx.set(port.en, 1)
            ctx.set(port.addr, address)
        await ctx.tick().repeat(READ_LATENCY)
        assert ctx.get(dut.matmul_read.data) == 106

    simulate(dut, drive)


@pytest.mark.filterwarnings("ignore::amaranth.hdl.UnusedElaboratable")
@pytest.mark.parametrize("words", [0, 65537])
def test_depth_beyond_the_address_is_refused_with_its_limit(words: int) -> None:
    with pytest.raises(InfeasibleError, match=rf"{words} words.*65536"):
        Scratchpad(words, 8)
    gc.collect()  # the half-built component complains here, where it is expected to
