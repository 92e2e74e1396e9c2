"""The command-level DRAM channel: every command keeps the part's rules, every request is served, bounds hold."""

from __future__ import annotations

from collections import defaultdict, deque
from dataclasses import replace

import numpy as np
import pytest

from dse.core.errors import UsageError
from dse.sim.dram_commands import command_log, run_commands
from dse.sim.dram_parts import DramPart, dram_part, dram_parts
from dse.sim.dram_streams import interleaved_streams, run_stream

ACT, PRE, RD, WR, REF = range(5)
PARTS = sorted(dram_parts())


def mixed_stream(part: DramPart, seed: int, requests: int = 3000) -> tuple[np.ndarray, np.ndarray]:
    """Runs of random length at random places, read or written."""
    rng = np.random.default_rng(seed)
    bursts, writes = [], []
    while len(bursts) < requests:
        run, start = int(rng.choice([1, 2, 8, 64])), int(rng.integers(0, 40 * part.bursts_per_row * part.banks))
        bursts += range(start, start + run)
        writes += [bool(rng.random() < 0.4)] * run
    return np.array(bursts[:requests], np.int64), np.array(writes[:requests])


class _Jedec:
    """Rules of the standard, one by one, on a list of commands; written apart from the controller's table."""

    def __init__(self, part: DramPart) -> None:
        self.part, self.per_rank = part, part.bank_groups * part.banks_per_group
        self.last: dict[tuple[int, str, int], int] = defaultdict(lambda: -(10**9))  # command, scope, index
        self.open: dict[int, int] = {}
        self.window: dict[int, deque[int]] = defaultdict(lambda: deque(maxlen=4))

    def since(self, now: int, command: int, scope: str, index: int) -> int:
        return now - self.last[command, scope, index]

    def check(self, now: int, command: int, bank: int, row: int) -> None:
        p, rank, group = self.part, bank // self.per_rank, bank // self.part.banks_per_group
        write_end = p.cwl + p.burst_cycles
        if command == ACT:
            assert bank not in self.open
            assert self.since(now, ACT, "bank", bank) >= p.ras + p.rp
            assert self.since(now, PRE, "bank", bank) >= p.rp
            assert self.since(now, REF, "rank", rank) >= p.rfc
            assert self.since(now, ACT, "group", group) >= p.rrd_l
            assert self.since(now, ACT, "rank", rank) >= p.rrd_s
            assert len(self.window[rank]) < 4 or now - self.window[rank][0] >= p.faw
            self.window[rank].append(now)
            self.open[bank] = row
        elif command == PRE:
            assert self.since(now, ACT, "bank", bank) >= p.ras
            assert self.since(now, RD, "bank", bank) >= p.rtp
            assert self.since(now, WR, "bank", bank) >= write_end + p.wr
            del self.open[bank]
        elif command == REF:
            assert all(other // self.per_rank != rank for other in self.open)
            assert all(self.since(now, PRE, "bank", bank + i) >= p.rp for i in range(self.per_rank))
        else:
            assert self.open[bank] == row
            assert self.since(now, ACT, "bank", bank) >= (p.rcd_read if command == RD else p.rcd_write)
            assert self.since(now, command, "group", group) >= p.ccd_l
            assert self.since(now, command, "rank", rank) >= p.ccd_s
            if command == RD:
                assert self.since(now, WR, "group", group) >= write_end + p.wtr_l
                assert self.since(now, WR, "rank", rank) >= write_end + p.wtr_s
        for scope, index in (("bank", bank), ("group", group), ("rank", rank)):
            self.last[command, scope, index] = now


@pytest.mark.parametrize("name", PARTS)
def test_every_command_keeps_the_rules_of_the_part(name: str) -> None:
    part = dram_part(name)
    bursts, writes = mixed_stream(part, 5)
    log = command_log(part, bursts, writes)
    rules = _Jedec(part)
    for now, command, bank, row in log.tolist():
        rules.check(now, command, bank, row)
    # each cycle carries one command, or a row and a column command on two buses
    cycles, often = np.unique(log[:, 0], return_counts=True)
    assert often.max() == (2 if part.two_command_buses else 1)
    for cycle in cycles[often == 2].tolist():
        assert (log[log[:, 0] == cycle, 1] // 2 == 1).sum() == 1
    # the data bus never carries two bursts at once
    data = log[(log[:, 1] == RD) | (log[:, 1] == WR)]
    begin = np.sort(data[:, 0] + np.where(data[:, 1] == RD, part.cl, part.cwl))
    assert (np.diff(begin) >= part.burst_cycles).all()


@pytest.mark.parametrize("name", PARTS)
def test_every_request_is_served_once_where_its_address_lies(name: str) -> None:
    part = dram_part(name)
    bursts, writes = mixed_stream(part, 8)
    log = command_log(part, bursts, writes)
    rank, group, bank, row = part.decode(bursts)
    place = (rank * part.bank_groups + group) * part.banks_per_group + bank
    wanted = np.stack([np.where(writes, WR, RD), place, row], axis=1)
    found = log[(log[:, 1] == RD) | (log[:, 1] == WR)][:, 1:]
    np.testing.assert_array_equal(np.unique(found, axis=0, return_counts=True)[1],
                                  np.unique(wanted, axis=0, return_counts=True)[1])  # fmt: skip
    run = run_commands(part, bursts, writes)
    assert (run.reads, run.writes) == (int((~writes).sum()), int(writes.sum()))
    assert run.activates == (log[:, 1] == ACT).sum()
    assert run.refreshes == (log[:, 1] == REF).sum()
    # all ranks are refreshed in turn, every refi cycles each
    assert abs(run.refreshes - run.cycles * part.ranks / part.refi) <= 1
    assert run.efficiency <= 1


@pytest.mark.parametrize("name", PARTS)
def test_an_idle_channel_answers_after_activate_column_and_burst(name: str) -> None:
    part = dram_part(name)
    run = run_commands(part, np.zeros(1, np.int64), np.zeros(1, bool))
    # one cycle from the transaction queue to the bank's queue
    assert run.mean_read_latency == 1 + part.rcd_read + part.cl + part.burst_cycles
    assert (run.activates, run.row_hits) == (1, 0)


def test_decoding_covers_the_part_and_follows_the_mapping() -> None:
    part = dram_part("ddr4_2400")
    rank, group, bank, row = part.decode(np.arange(part.bursts_per_row * part.banks * 2))
    assert rank[: part.bursts_per_row].max() == group[: part.bursts_per_row].max() == 0
    assert group[part.bursts_per_row] == 1  # bank group above the column
    assert len({*zip(rank.tolist(), group.tolist(), bank.tolist(), row.tolist(), strict=True)}) == 2 * part.banks
    assert (part.burst_bytes, part.row_bytes, part.banks) == (64, 8192, 32)
    assert part.peak_bytes_per_second == pytest.approx(19.28e9, rel=1e-3)


def test_energy_is_the_commands_and_standby() -> None:
    part = replace(dram_part("hbm2_2000_legacy"), refresh_pj=0.0)
    run = run_commands(part, *run_stream(part, 4000), None)
    energy = run.energy_pj
    assert energy["read"] == 4000 * part.read_pj
    assert energy["write"] == 0
    assert energy["activate"] == run.activates * part.activate_pj
    assert 0 <= run.activates - 4000 // part.bursts_per_row <= 4 * run.refreshes  # rows open again behind a refresh
    assert part.idle_mw * run.cycles < energy["standby"] <= part.active_mw * run.cycles
    assert run.pj_per_bit == pytest.approx(sum(energy.values()) / (4000 * 512))


def test_interleaving_bank_groups_lifts_the_column_limit() -> None:
    part = dram_part("ddr4_3200")
    finer = replace(part, mapping="rorabacobg")
    cycles = 50_000
    stock = run_commands(part, *run_stream(part, 20_000), cycles).efficiency
    assert run_commands(finer, *run_stream(finer, 20_000), cycles).efficiency > 0.95 > 0.7 > stock


def test_streams_are_where_they_say() -> None:
    part = dram_part("lpddr4_2400")
    bursts, writes = interleaved_streams(part, 12, 256, 2, 1)
    share = part.rows * part.bursts_per_row * part.banks // 4
    assert bursts.tolist() == [0, 1, share, share + 1, 2 * share, 2 * share + 1,
                               2, 3, share + 2, share + 3, 2 * share + 2, 2 * share + 3]  # fmt: skip
    assert writes.tolist() == [False] * 4 + [True, True] + [False] * 4 + [True, True]
    assert run_stream(part, 4, 256, 1024, write=True)[0].tolist() == [0, 1, 8, 9]
    random = run_stream(part, 1000, 512, seed=3)[0]
    assert (random.reshape(-1, 4) % 4 == np.arange(4)).all()
    assert len(set((random // 4).tolist())) > 240


def test_unusable_input_is_refused() -> None:
    part = dram_part("ddr4_2400")
    with pytest.raises(UsageError, match="'ddr4_2401' is no DRAM part; did you mean 'ddr4_2400'"):
        dram_part("ddr4_2401")
    with pytest.raises(ValueError, match="3 addresses and 2 directions"):
        run_commands(part, np.zeros(3, np.int64), np.zeros(2, bool))
    with pytest.raises(ValueError, match="more are needed to fill 1000"):
        run_commands(part, *run_stream(part, 10), 1000)
