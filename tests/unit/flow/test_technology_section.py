"""The `tech:` section of a run configuration reaches the design, and what is wrong in it is named with its line."""

from __future__ import annotations

from pathlib import Path

import pytest

from dse.config import load_config
from dse.core.errors import ConfigError
from dse.flow.accelerator import design_of, resolve_accelerator
from dse.flow.stages import prepare_run
from dse.flow.technology import with_technology

RUN = """name: small
workload: {{model: 'zoo:tiny_cnn'}}
accelerator: {{family: systolic, hardware: {{{hardware}}}}}
{tech}
"""


def write(folder: Path, tech: str, hardware: str = "rows: 4") -> Path:
    path = folder / "run.yaml"
    path.write_text(RUN.format(tech=tech, hardware=hardware))
    return path


def test_node_supply_and_prices_become_hardware_parameters(tmp_path: Path) -> None:
    path = write(tmp_path, "tech: {node_nm: 28, vdd: 0.8, device: HP, overrides: {register_energy: 0.004}}")
    loaded = load_config(path)
    for hw in (
        design_of(with_technology(loaded.config.accelerator, loaded.config.tech, loaded.marks), loaded.marks).hw,
        resolve_accelerator(str(path)).hw,
        prepare_run(loaded, None).design.hw,
    ):
        assert (hw.node_nm, hw.vdd, hw.device, hw.rows) == (28, 0.8, "HP", 4)
        assert hw.technology.value("register_energy") == 0.004


def test_without_the_section_the_design_is_that_of_45_nm(tmp_path: Path) -> None:
    hw = resolve_accelerator(str(write(tmp_path, ""))).hw
    assert (hw.node_nm, hw.device, hw.vdd, hw.prices) == (45, "HP", None, ())


def test_every_result_of_the_section_is_another_cost(tmp_path: Path) -> None:
    plain = resolve_accelerator(str(write(tmp_path, "")))
    base = plain.family.cost(plain.hw)
    for tech in ("{node_nm: 28}", "{vdd: 0.9}", "{overrides: {sram_area_factor: 2}}", "{device: LP}"):
        design = resolve_accelerator(str(write(tmp_path, f"tech: {tech}", "clock_mhz: 100")))
        cost = design.family.cost(design.hw)
        assert cost.area_um2 != base.area_um2 or cost.static_mw != base.static_mw, tech


@pytest.mark.parametrize(
    ("tech", "message"),
    [
        ("tech:\n  node_nm: 5", r"run.yaml:5: tech.node_nm: must be at least 7"),
        ("tech:\n  node: 28", r"run.yaml:5: tech.node: .*did you mean 'node_nm'"),
        (
            "tech:\n  node_nm: 45\n  vdd: 1.3",
            r"run.yaml:6: tech.vdd: 1.3 V lies outside 0.6 to 0.94 V.*nearest is 0.94 V",
        ),
        (
            "tech:\n  overrides:\n    registr_energy: 1",
            r"run.yaml:6: tech.overrides.registr_energy: .*did you mean 'register_energy'",
        ),
        ("tech:\n  overrides:\n    register_energy: 0", r"run.yaml:6: .*must be a positive number, not 0"),
        ("tech:\n  overrides:\n    register_energy: low", r"run.yaml:6: .*must be a number"),
    ],
)
def test_a_wrong_section_is_named_with_its_line(tmp_path: Path, tech: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        prepare_run(load_config(write(tmp_path, tech)), None)


def test_a_contradiction_between_the_sections_is_refused(tmp_path: Path) -> None:
    path = write(tmp_path, "tech: {node_nm: 28}", "node_nm: 65")
    with pytest.raises(ConfigError, match=r"contradicts the accelerator section: .*node_nm says 65"):
        prepare_run(load_config(path), None)
    same = write(tmp_path, "tech: {node_nm: 65}", "node_nm: 65")
    assert resolve_accelerator(str(same)).hw.node_nm == 65
