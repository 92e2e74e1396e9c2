"""The DRAM channel against the efficiencies that DRAMsim3 reached: 28 patterns on four parts."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dse.core.errors import UsageError
from dse.sim.dram_commands import run_commands
from dse.sim.dram_parts import dram_part
from dse.sim.dram_streams import interleaved_streams, run_stream
from dse.validate.dram import PARTS, closed_form_efficiency, dram_closed_form_suite, dram_suite
from dse.validate.reference import read_rows
from dse.validate.suite import Suite

REFERENCE = Path(__file__).parents[2].parent / "shared" / "reference" / "systolic" / "dramsim3_patterns.csv"


def errors(suite: Suite) -> dict[str, float]:
    found = {suite.label(row): suite.run(row)[0] for row in suite.rows}
    for label, figure in found.items():
        print(f"{label:34s} {figure.predicted:.3f} {figure.recorded:.3f}")  # noqa: T201 - the table, with pytest -s
    return {label: abs(figure.predicted / figure.recorded - 1) for label, figure in found.items()}


@pytest.fixture(scope="module")
def reference() -> Path:
    if not REFERENCE.is_file():
        pytest.skip("the shared reference data is absent")
    return REFERENCE


@pytest.mark.parametrize("make", [dram_suite, dram_closed_form_suite])
def test_efficiencies_are_within_ten_percent_mostly_and_twenty_five_at_worst(make: object, reference: Path) -> None:
    found = errors(make(reference))  # type: ignore[operator]
    assert len(found) == 28
    assert np.median(list(found.values())) <= 0.10
    assert max(found.values()) <= 0.25, max(found, key=lambda label: found[label])
    for config in PARTS:
        assert np.median([error for label, error in found.items() if label.startswith(config)]) <= 0.10


def test_row_hits_and_energy_follow_the_record(reference: Path) -> None:
    rows = read_rows(reference, ("config", "pattern", "row_hit", "energy_pJ_per_bit_core"))
    hits, energies = [], []
    for row in rows:
        part, pattern = dram_part(PARTS[row["config"]]), row["pattern"]
        if pattern.startswith("mix"):
            stream = interleaved_streams(part, 60_000, int(pattern[3:].split("_")[0]), 2, 1)
        elif pattern.startswith("rnd_"):
            stream = run_stream(part, 60_000, part.burst_bytes)
        elif pattern.startswith("rnd1K"):
            stream = run_stream(part, 60_000, 1024)
        elif pattern.startswith("str4K"):
            stream = run_stream(part, 60_000, part.burst_bytes, 4096)
        else:
            stream = run_stream(part, 60_000, write=pattern.startswith("seqW"))
        run = run_commands(part, *stream, 100_000)
        hits.append(abs(run.row_hits / (run.reads + run.writes) - float(row["row_hit"])))
        energies.append(abs(run.pj_per_bit / float(row["energy_pJ_per_bit_core"]) - 1))
    assert len(rows) == 28
    assert max(hits) <= 0.02
    assert np.median(energies) <= 0.01
    assert max(energies) <= 0.05


def test_unknown_patterns_and_parts_are_named(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="'zigzag_64' is no access pattern; known: seqR, seqW"):
        closed_form_efficiency(dram_part("ddr4_2400"), "zigzag_64", 0)
    file = tmp_path / "patterns.csv"
    file.write_text("config,pattern,req_bytes,cycles,efficiency\nDDR9,seqR64,64,100,0.5\n")
    suite = dram_suite(file)
    with pytest.raises(UsageError, match="DDR9 seqR64: no part stands for 'DDR9'; known: DDR4_8Gb_x8_2400"):
        suite.run(suite.rows[0])
