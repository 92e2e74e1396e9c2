"""Progress lines, tables and figures for people."""

from __future__ import annotations

import io
import math
import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from dse.core.progress import PlainReporter, SilentReporter, TerminalReporter, make_reporter, plain_table
from dse.core.units import byte_size, count, percent, si


def plain(times: list[float]) -> tuple[PlainReporter, io.StringIO, io.StringIO]:
    progress, results = io.StringIO(), io.StringIO()
    clock = iter(times)
    return PlainReporter(progress, results, clock=lambda: next(clock)), progress, results


def test_a_log_gets_a_line_per_interval_and_not_per_step() -> None:
    reporter, progress, _ = plain([0.0, 1.0, 2.0, 6.0, 6.0, 7.0])
    reporter.stage("search", 10)
    for _ in range(4):
        reporter.advance(note="front 3")
    reporter.close()
    assert progress.getvalue().splitlines() == ["search ...", "search: 3/10 front 3", "search: 4/10 done"]


def test_tables_go_to_the_results_and_messages_to_progress() -> None:
    reporter, progress, results = plain([])
    reporter.message("hello [bold]")
    reporter.table("title", ("name", "value"), [("a", 1), ("long name", 22.5)])
    assert progress.getvalue() == "hello [bold]\n"
    assert results.getvalue().splitlines() == ["title", "name       value", "a              1", "long name   22.5"]


@given(st.lists(st.tuples(st.text("abc 1", max_size=8), st.integers()), min_size=1, max_size=5))
def test_table_columns_line_up(rows: list[tuple[str, int]]) -> None:
    lines = plain_table("", ("first", "n"), rows).splitlines()
    assert len(lines) == len(rows) + 1
    for line, (_, number) in zip(lines[1:], rows, strict=True):
        assert line.endswith(str(number))
    assert len({len(line) for line in lines}) == 1


def test_a_terminal_reporter_shows_names_of_models_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = TerminalReporter()
    reporter.stage("search [red]x[/red]", 2)
    reporter.advance(2, note="[b]")
    reporter.message("[/b] is no markup")
    reporter.table("[title]", ("layer", "cycles"), [("[conv]", "1,000")])
    reporter.close()
    captured = capsys.readouterr()
    assert "[/b] is no markup" in captured.err
    assert "search [red]x[/red]" in captured.err
    assert "[title]" in captured.out
    assert "[conv]" in captured.out


def test_an_unknown_number_of_steps_ends_full(capsys: pytest.CaptureFixture[str]) -> None:
    reporter = TerminalReporter()
    reporter.stage("load")
    reporter.close()
    assert "1/1" in capsys.readouterr().err


def test_the_reporter_fits_the_process() -> None:
    assert isinstance(make_reporter(quiet=True), SilentReporter)
    assert isinstance(make_reporter(), PlainReporter)  # pytest's streams are no terminals


def test_importing_progress_imports_no_output_library() -> None:
    code = "import sys, dse.core.progress; sys.exit('rich' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [
        (4.089e9, "MAC", "4.089 GMAC"),
        (999_960, "B/s", "1 MB/s"),
        (0, "J", "0 J"),
        (2.5e-12, "J", "2.5 pJ"),
        (-1500, "W", "-1.5 kW"),
        (3e-20, "s", "3e-20 s"),
    ],
)
def test_si_prefixes(value: float, unit: str, expected: str) -> None:
    assert si(value, unit) == expected


@given(st.floats(1e-12, 1e14))
def test_si_keeps_four_digits(value: float) -> None:
    number, unit = si(value, "J").split()
    factor = {"p": 1e-12, "n": 1e-9, "u": 1e-6, "m": 1e-3, "": 1.0, "k": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
    assert math.isclose(float(number) * factor[unit.removesuffix("J")], value, rel_tol=6e-4)


def test_counts_bytes_and_percentages() -> None:
    assert count(12_501_632) == "12,501,632"
    assert [byte_size(n) for n in (0, 1023, 1536, 5 << 20, 3 << 40)] == [
        "0 B",
        "1023 B",
        "1.5 KiB",
        "5 MiB",
        "3072 GiB",
    ]
    assert percent(0.875) == "87.5%"
