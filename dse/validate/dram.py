"""Suites `dram` and `dram_closed_form`: our DRAM channel against DRAMsim3's efficiency by access pattern."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path

from dse.core.errors import UsageError
from dse.sim.dram_commands import run_commands
from dse.sim.dram_parts import DramPart, dram_part
from dse.sim.dram_service import interleaved_cycles_per_burst, stream_cycles_per_burst
from dse.sim.dram_streams import interleaved_streams, run_stream
from dse.validate.reference import read_rows
from dse.validate.suite import Comparison, Row, Suite

SOURCE = "DRAMsim3, stock configurations, 100,000 cycles, at most one request a cycle"
#: The recorded configurations and the part that each is.
PARTS = {
    "DDR4_8Gb_x8_2400": "ddr4_2400",
    "DDR4_8Gb_x8_3200": "ddr4_3200",
    "LPDDR4_8Gb_x16_2400": "lpddr4_2400",
    "HBM2_1ch": "hbm2_2000_legacy",
}
#: Relative error that every row must keep.
BOUND = 0.25
#: Half a unit of the last digit recorded.
_RESOLUTION = 0.0005
_READ_STREAMS, _WRITE_STREAMS = 2, 1
_UNITS = {"": 1, "K": 1024}


def dram_suite(path: Path) -> Suite:
    """The command-level channel on a file of recorded efficiencies.

    Raises
    ------
    UsageError: the file cannot be read or lacks a column.
    """
    return Suite("dram", SOURCE, _rows(path), _against(command_efficiency), _label)


def dram_closed_form_suite(path: Path) -> Suite:
    """The closed-form service time on the same file."""
    return Suite("dram_closed_form", SOURCE, _rows(path), _against(closed_form_efficiency), _label)


def _rows(path: Path) -> Sequence[Row]:
    return read_rows(path, ("config", "pattern", "req_bytes", "cycles", "efficiency"))


def _against(predict: Callable[[DramPart, str, int], float]) -> Callable[[Row], Sequence[Comparison]]:
    def run(row: Row) -> Sequence[Comparison]:
        predicted = predict(_part_of(row), row["pattern"], int(row["cycles"]))
        return [Comparison("efficiency", predicted, float(row["efficiency"]), _RESOLUTION, BOUND)]

    return run


def _part_of(row: Row) -> DramPart:
    if row["config"] not in PARTS:
        raise UsageError(f"{_label(row)}: no part stands for {row['config']!r}; known: {', '.join(PARTS)}")
    return dram_part(PARTS[row["config"]])


def _label(row: Row) -> str:
    return f"{row['config']} {row['pattern']}"


def _length(pattern: str, prefix: str) -> int:
    """Bytes named behind the prefix of a pattern: "str4K_64" gives 4096."""
    found = re.fullmatch(rf"{prefix}(\d+)(K?)_\d+", pattern)
    if found is None:
        raise UsageError(f"{pattern!r} is no access pattern; known: seqR, seqW, mixN, strN, rnd, rndN")
    return int(found[1]) * _UNITS[found[2]]


def command_efficiency(part: DramPart, pattern: str, cycles: int) -> float:
    """Share of cycles with data on the bus, command by command.

    Patterns: "seqR", "seqW" sequential; "mixN" two reading streams and a writing one in turns of N bytes, aligned to
    the same bank; "strN" one burst every N bytes; "rnd" random bursts; "rndN" random blocks of N bytes. A number of
    request bytes follows the underscore.

    Raises
    ------
    UsageError: unknown pattern.
    """
    requests = cycles // part.burst_cycles + 1024
    if pattern.startswith("mix"):
        stream = interleaved_streams(part, requests, _length(pattern, "mix"), _READ_STREAMS, _WRITE_STREAMS)
    else:
        run, stride, write = _single(part, pattern)
        stream = run_stream(part, requests, run, stride, write=write)
    return run_commands(part, *stream, cycles).efficiency


def closed_form_efficiency(part: DramPart, pattern: str, cycles: int) -> float:
    """The same by the closed form; `cycles` plays no part."""
    if pattern.startswith("mix"):
        chunk = _length(pattern, "mix")
        return part.burst_cycles / interleaved_cycles_per_burst(part, chunk, _READ_STREAMS, _WRITE_STREAMS)
    run, stride, write = _single(part, pattern)
    return part.burst_cycles / stream_cycles_per_burst(part, run, stride, write=write)


def _single(part: DramPart, pattern: str) -> tuple[int | None, int | None, bool]:
    """Run length, stride and direction of a pattern of one stream."""
    if pattern.startswith("seq"):
        return None, None, pattern.startswith("seqW")
    if pattern.startswith("str"):
        return part.burst_bytes, _length(pattern, "str"), False
    if re.fullmatch(r"rnd_\d+", pattern):
        return part.burst_bytes, None, False
    return _length(pattern, "rnd"), None, False
