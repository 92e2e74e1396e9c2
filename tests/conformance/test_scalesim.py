"""Our SCALE-Sim formulas equal the tool's reports row by row, and the suite runner tells when they do not."""

from __future__ import annotations

import csv
import math
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.core.errors import UsageError
from dse.peers.scalesim import compute_mode
from dse.validate import Comparison, Suite, available_suites, run_suite, scalesim_suite

REFERENCE = Path(__file__).parents[2].parent / "shared" / "reference"
ROWS = REFERENCE / "systolic" / "scalesim_calc.csv"
needs_reference = pytest.mark.skipif(not ROWS.is_file(), reason="shared references absent")

# three rows of the reference, so that the formulas are pinned where it is absent
RECORDED = """net,layer,M,K,N,rows,cols,dataflow,folds,fold_cycles,total_cycles_reported,overall_util_pct,\
mapping_eff_pct,compute_util_pct,ifmap_sram_reads,filter_sram_reads,ofmap_sram_writes
alexnet,Conv1,3025,363,96,8,8,os,4548,377,1714595,96.064231,99.769129,96.064175,13176900,13207392,363168
alexnet,Conv1,3025,363,96,8,8,ws,552,3047,1681943,97.929151,98.641304,97.704632,13176900,34848,13358400
alexnet,Conv1,3025,363,96,8,8,is,17434,118,2057211,80.065317,98.41357,75.581622,1098075,13207392,13358400
"""

layers = st.tuples(*[st.integers(1, 40)] * 3, *[st.integers(1, 12)] * 2)


@needs_reference
def test_every_recorded_row_is_met_exactly() -> None:
    result = run_suite(available_suites(REFERENCE)["scalesim"])
    assert (result.count, result.exact, result.mape, result.worst) == (738, 738, 0.0, "")
    assert result.all_exact


@needs_reference
def test_the_reference_is_compared_column_by_column_without_the_suite() -> None:
    # an independent reading of the file: rounding to the printed digits instead of the suite's resolution
    with ROWS.open(encoding="utf-8") as stream:
        rows = list(csv.DictReader(stream))
    for row in rows:
        result = compute_mode(*(int(row[name]) for name in ("M", "K", "N", "rows", "cols")), row["dataflow"])
        assert result.total_cycles == int(row["total_cycles_reported"])
        assert result.ifmap_sram_reads == int(row["ifmap_sram_reads"])
        assert result.filter_sram_reads == int(row["filter_sram_reads"])
        assert result.ofmap_sram_writes == int(row["ofmap_sram_writes"])
        assert round(result.overall_utilization_pct, 6) == float(row["overall_util_pct"])
        assert round(result.mapping_efficiency_pct, 6) == float(row["mapping_eff_pct"])
        assert round(result.compute_utilization_pct, 6) == float(row["compute_util_pct"])
    assert len(rows) == 738


@pytest.fixture
def recorded(tmp_path: Path) -> Path:
    path = tmp_path / "recorded.csv"
    path.write_text("# a comment\n" + RECORDED, encoding="utf-8")
    return path


def test_recorded_rows_of_all_dataflows_are_exact(recorded: Path) -> None:
    result = run_suite(scalesim_suite(recorded))
    assert (result.count, result.exact) == (3, 3)


@pytest.mark.parametrize(
    ("column", "value", "error"),
    [("total_cycles_reported", "1714596", 1 / 1714596), ("mapping_eff_pct", "99.769131", 2e-6 / 99.769131)],
)
def test_a_deviation_in_the_last_digit_is_found_and_named(recorded: Path, column, value, error) -> None:
    rows = list(csv.DictReader(RECORDED.splitlines()))
    rows[0][column] = value
    good = scalesim_suite(recorded)
    result = run_suite(Suite(good.name, good.source, rows, good.run, good.label))
    assert result.exact == 2
    assert not result.all_exact
    assert result.worst.startswith(f"alexnet Conv1 os 8x8: {column} ")
    figures = 3 * 9
    assert result.mape == pytest.approx(100 * error / figures, rel=0.2)


@settings(max_examples=200, deadline=None)
@given(layer=layers, dataflow=st.sampled_from(["os", "ws", "is"]))
def test_cycles_and_accesses_equal_a_walk_over_the_folds(layer, dataflow: str) -> None:
    m, k, n, rows, columns = layer
    along_rows, along_columns, time = {"os": (m, n, k), "ws": (k, n, m), "is": (k, m, n)}[dataflow]
    cycles = used = 0
    ifmap = filters = ofmap = 0
    for row in range(0, along_rows, rows):
        for column in range(0, along_columns, columns):
            r, c = min(rows, along_rows - row), min(columns, along_columns - column)
            if dataflow != "os":
                cycles += rows  # the stationary block shifts in
            cycles += time + (rows - 1) + (columns - 1)
            used += r * c
            if dataflow == "os":
                ifmap, filters, ofmap = ifmap + r * k, filters + c * k, ofmap + r * c + rows + columns
            elif dataflow == "ws":
                ifmap, filters, ofmap = ifmap + r * m, filters + r * c, ofmap + c * m
            else:
                ifmap, filters, ofmap = ifmap + r * c, filters + r * n, ofmap + c * n
    result = compute_mode(m, k, n, rows, columns, dataflow)
    assert result.folds * result.fold_cycles == cycles == result.total_cycles + 1
    assert (result.ifmap_sram_reads, result.filter_sram_reads, result.ofmap_sram_writes) == (ifmap, filters, ofmap)
    assert result.mapping_efficiency_pct == pytest.approx(100 * used / (result.folds * rows * columns))
    assert result.compute_utilization_pct <= result.mapping_efficiency_pct * (1 + 1e-12)
    assert result.mapping_efficiency_pct <= 100 * (1 + 1e-12)


def test_a_result_in_cycle_zero_has_the_unbounded_utilization_of_the_tools_convention() -> None:
    result = compute_mode(1, 1, 1, 1, 1, "os")
    assert result.total_cycles == 0
    assert math.isinf(result.overall_utilization_pct)


@pytest.mark.parametrize("size", range(5))
def test_sizes_below_one_are_refused_by_name(size: int) -> None:
    sizes = [4, 4, 4, 4, 4]
    sizes[size] = 0
    with pytest.raises(UsageError, match=f"{['M', 'K', 'N', 'rows', 'columns'][size]} = 0"):
        compute_mode(*sizes, "ws")


def test_an_unknown_dataflow_names_the_choices() -> None:
    with pytest.raises(UsageError, match="is, os, ws"):
        compute_mode(4, 4, 4, 4, 4, "rs")


def test_comparisons_know_what_their_record_can_tell_apart() -> None:
    assert Comparison("count", 7, 7).exact
    assert not Comparison("count", 7, 8).exact
    assert Comparison("share", 0.12345649, 0.123456, 0.5e-6).exact
    assert Comparison("share", 9, 10).relative_error == pytest.approx(0.1)
    assert Comparison("misses", 3, 0).relative_error == math.inf
    assert Comparison("misses", 0, 0).relative_error == 0


def test_a_suite_without_rows_is_not_called_exact() -> None:
    result = run_suite(Suite("empty", "nowhere", [], lambda row: [], lambda row: ""))
    assert result.count == 0
    assert not result.all_exact


def test_damaged_references_are_named_by_file_row_and_column(tmp_path: Path) -> None:
    path = tmp_path / "rows.csv"
    with pytest.raises(UsageError, match="cannot be read"):
        scalesim_suite(path)
    path.write_text("net,M\n", encoding="utf-8")
    with pytest.raises(UsageError, match="no rows"):
        scalesim_suite(path)
    path.write_text(RECORDED.replace("3025", "", 1), encoding="utf-8")
    with pytest.raises(UsageError, match="row 1 has no 'M'"):
        scalesim_suite(path)
    for text, complaint in (("many", "must be a number"), ("2.5", "must be a whole number")):
        path.write_text(RECORDED.replace("3025", text, 1), encoding="utf-8")
        with pytest.raises(UsageError, match=complaint):
            run_suite(scalesim_suite(path))
    with pytest.raises(UsageError, match="scalesim_calc"):
        available_suites(tmp_path)
