"""`dse show tech` and `dse validate` as a user sees them."""

from __future__ import annotations

import json

import pytest

from dse.cli.main import run_command_line


def dse(capsys: pytest.CaptureFixture[str], *arguments: str) -> tuple[int, str, str]:
    code = run_command_line(arguments)
    captured = capsys.readouterr()
    return code, captured.out, captured.err


def test_a_component_is_shown_at_a_node_with_unit_evidence_and_source(capsys) -> None:
    code, out, _ = dse(capsys, "show", "tech", "--node", "28", "--component", "register_energy", "--json")
    assert code == 0
    (record,) = json.loads(out)
    assert record["name"] == "register_energy"
    assert (record["unit"], record["node_nm"], record["evidence"]) == ("pJ/bit", 28, "S")
    assert "scaled from 45 nm" in record["source"]
    code, out, _ = dse(capsys, "show", "tech", "--node", "28", "--component", "register_energy")
    assert code == 0
    assert "28 nm HP" in out
    assert "0.0040" in out


def test_both_sources_of_a_multiply_are_shown_and_why_one_is_used(capsys) -> None:
    _, out, _ = dse(capsys, "show", "tech", "--component", "multiply8", "--json")
    records = {record["name"]: record for record in json.loads(out)}
    assert {name: record["value"] for name, record in records.items()} == {
        "multiply8_energy_aladdin": 0.79, "multiply8_energy_horowitz": 0.2,
    }  # fmt: skip
    assert "used" in records["multiply8_energy_aladdin"]["scope"]


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (
            ["tech", "--node", "5"],
            "5 nm lies outside 7 to 180 nm, for which scaling factors are published; nearest is 7",
        ),
        (["tech", "--component", "registr_energy"], "did you mean 'register_energy'"),
        (["systolic", "--node", "28"], "belong to dse show tech"),
        (["systolic", "--json"], "belong to dse show tech"),
    ],
)
def test_what_cannot_be_shown_is_refused_with_the_reason(capsys, arguments: list[str], words: str) -> None:
    code, out, err = dse(capsys, "show", *arguments)
    assert (code, out) == (2, "")
    assert words in err


def test_runs_of_memories_are_shown_when_asked_for(capsys) -> None:
    _, out, _ = dse(capsys, "show", "tech")
    assert "sram_read_pj" not in out
    assert "and 1125 figures of CACTI's runs: --component sram shows them" in out
    _, out, _ = dse(capsys, "show", "tech", "--component", "sram_read_pj")
    assert out.count("sram_read_pj") == 225


def test_validate_lists_all_suites_and_their_errors(capsys) -> None:
    code, out, _ = dse(capsys, "validate", "--json")
    assert code == 0
    suites = {item["name"]: item for item in json.loads(out)}
    assert {"sram", "sram_prices", "area", "eyeriss", "chips"} <= set(suites)
    assert suites["area"]["max_error"] < 0.1
    assert suites["area"]["notes"]


def test_one_suite_is_printed_row_by_row_with_what_it_stands_on(capsys) -> None:
    code, out, _ = dse(capsys, "validate", "eyeriss")
    assert code == 0
    for words in ("conv5", "278", "25.0%", "chip power by term", "pJ per 16-bit read: RF", "arithmetic below 10 %"):
        assert words in out


def test_a_long_suite_prints_its_worst_rows_unless_all_are_asked_for(capsys) -> None:
    _, short, _ = dse(capsys, "validate", "sram")
    assert "the 24 worst of 4300 figures" in short
    _, every, _ = dse(capsys, "validate", "area", "--all")
    assert every.count("pe_ws_i8_a32") >= 4


def test_an_unknown_suite_names_the_nearest(capsys) -> None:
    code, _, err = dse(capsys, "validate", "eyeris")
    assert code == 2
    assert "did you mean 'eyeriss'" in err


def test_a_folder_of_references_adds_its_suites(capsys, tmp_path) -> None:
    code, _, err = dse(capsys, "validate", "--reference", str(tmp_path))
    assert code == 2
    assert "holds no reference file" in err
