"""The closed-form service time: near the command-level channel on many patterns, and usable as a channel."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from shared_graphs import core_pipelines
from test_graph_rules import pair

from dse.core.errors import UsageError
from dse.program.taskgraph import Arbitration
from dse.sim import simulate_a, simulate_b
from dse.sim.dram_channel import dram_arbitration, on_dram
from dse.sim.dram_commands import run_commands
from dse.sim.dram_parts import dram_part, dram_parts
from dse.sim.dram_service import (
    first_access_ns,
    interleaved_cycles_per_burst,
    refresh_factor,
    row_cycles,
    stream_cycles_per_burst,
    transfer_ns,
)
from dse.sim.dram_streams import interleaved_streams, run_stream

PARTS = sorted(dram_parts())
CYCLES = 30_000


def command_spacing(name: str, run: int | None, stride: int | None, write: bool) -> float:
    part = dram_part(name)
    requests = CYCLES // part.burst_cycles + 500
    found = run_commands(part, *run_stream(part, requests, run, stride, write=write), CYCLES)
    return found.cycles / (found.reads + found.writes)


@pytest.mark.parametrize("name", PARTS)
def test_closed_form_is_near_the_commands_on_single_streams(name: str) -> None:
    part = dram_part(name)
    patterns = [(None, None), (256, None), (512, None), (2048, None), (4096, None), (256, 8192), (1024, 4096)]
    errors = []
    for run, stride in patterns:
        for write in (False, True):
            expected = command_spacing(name, run, stride, write)
            errors.append(abs(stream_cycles_per_burst(part, run, stride, write=write) / expected - 1))
    assert np.median(errors) <= 0.10
    assert max(errors) <= 0.25


@pytest.mark.parametrize("name", PARTS)
def test_closed_form_is_near_the_commands_on_interleaved_streams(name: str) -> None:
    part = dram_part(name)
    for chunk in (512, 1024, 4096):
        stream = interleaved_streams(part, CYCLES // part.burst_cycles + 500, chunk, 2, 1)
        found = run_commands(part, *stream, CYCLES)
        expected = found.cycles / (found.reads + found.writes)
        assert interleaved_cycles_per_burst(part, chunk, 2, 1) == pytest.approx(expected, rel=0.20)


@pytest.mark.parametrize("name", PARTS)
def test_no_pattern_beats_the_bus_and_longer_runs_are_no_slower(name: str) -> None:
    part = dram_part(name)
    runs = [part.burst_bytes * 2**k for k in range(6)]
    spacing = [stream_cycles_per_burst(part, run) for run in runs if run < part.row_bytes]
    assert min(spacing) >= part.burst_cycles * refresh_factor(part)
    if part.bank_groups == 1:  # with groups, long rows are bound by the spacing inside one
        assert all(longer <= shorter + 1e-9 for shorter, longer in pairwise(spacing))
    assert row_cycles(part, 8, write=True) > row_cycles(part, 8, write=False) >= part.ras + part.rp


def test_four_activates_bind_single_bursts_of_hbm2_by_hand() -> None:
    part = dram_part("hbm2_2000_legacy")
    # 30 / 4 = 7.5 cycles an activate, one each burst, and 260 of 3900 cycles go to refresh
    assert stream_cycles_per_burst(part, 64) == pytest.approx(7.5 / (1 - 260 / 3900))
    assert first_access_ns(part) == 14 + 14 + 2


def test_transfers_round_up_to_bursts_of_every_run() -> None:
    part = dram_part("lpddr4_2400")
    spacing = stream_cycles_per_burst(part, 130) * part.clock_ns
    assert transfer_ns(part, 1300, 130) == pytest.approx(20 * spacing)  # ten runs of two bursts
    assert transfer_ns(part, 1280) == pytest.approx(10 * stream_cycles_per_burst(part) * part.clock_ns)


def test_a_graph_on_dram_lasts_longer_only_where_the_part_is_slower() -> None:
    graph = core_pipelines(1, 50, 1, Arbitration())
    fast = on_dram(graph, dram_part("hbm2_2000_legacy"), port_bytes=4, clock_mhz=200)
    np.testing.assert_array_equal(fast.duration_cycles, graph.duration_cycles)
    slow = on_dram(graph, dram_part("lpddr4_3200"), port_bytes=64, clock_mhz=800)
    moving = graph.service_cycles > 0
    assert (slow.duration_cycles > graph.duration_cycles)[moving].all()
    np.testing.assert_array_equal(slow.duration_cycles[~moving], graph.duration_cycles[~moving])
    part = dram_part("lpddr4_3200")
    size = int(graph.service_cycles[moving][0]) * 64
    nanoseconds = -(-size // part.burst_bytes) * stream_cycles_per_burst(part) * part.clock_ns
    assert slow.service_cycles[moving][0] == np.ceil(nanoseconds * 0.8)
    assert (slow.duration_cycles - slow.service_cycles)[moving].tolist() == (
        (graph.duration_cycles - graph.service_cycles)[moving].tolist()
    )
    assert simulate_b(slow).total_cycles > simulate_b(graph).total_cycles
    assert simulate_a(slow).total_cycles <= simulate_b(slow).total_cycles


def test_pieces_and_switches_follow_the_part() -> None:
    part = dram_part("ddr4_2400")
    rule = dram_arbitration(part, 1000 / 0.83, chunk_bytes=4096)  # a cycle of the graph is one of the part
    assert rule.chunk_cycles == round(64 * stream_cycles_per_burst(part))
    assert rule.switch_cycles == part.rtp + part.rp + part.rcd_read


def test_unusable_input_is_refused() -> None:
    part = dram_part("ddr4_2400")
    with pytest.raises(ValueError, match="runs of 128 bytes every 64 bytes overlap"):
        stream_cycles_per_burst(part, 128, 64)
    with pytest.raises(ValueError, match="a run of 0 bytes"):
        stream_cycles_per_burst(part, 0)
    with pytest.raises(ValueError, match="2 reading and 0 writing streams"):
        interleaved_cycles_per_burst(part, 512, 2, 0)
    with pytest.raises(ValueError, match="a transfer of 0 bytes"):
        transfer_ns(part, 0)
    with pytest.raises(UsageError, match="a port of 0 bytes at 200 MHz"):
        on_dram(pair(), part, port_bytes=0, clock_mhz=200)
    with pytest.raises(UsageError, match="states its service times itself"):
        on_dram(replace(pair(), transfers=np.array([[2, 0, 3]])), part, port_bytes=8, clock_mhz=200)
    with pytest.raises(UsageError, match="pieces of 0 bytes"):
        dram_arbitration(part, 200, chunk_bytes=0)
