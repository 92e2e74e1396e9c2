"""From what a user wrote to a network or a design: every way that is offered, and what refuses it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from dse.backend import RtlUnavailable
from dse.config.models import AcceleratorConfig
from dse.core import registry
from dse.core.errors import ConfigError, InfeasibleError, ModelError, UsageError
from dse.flow.accelerator import Design, design_of, presets, resolve_accelerator
from dse.flow.emit import emit_design
from dse.flow.simulate import simulate
from dse.flow.workload import available_models, load_workload
from workloads.zoo.table import networks


def hardware(design: Design) -> dict[str, Any]:
    return design.hw.model_dump()


def test_a_family_name_means_its_default_design() -> None:
    design = resolve_accelerator("systolic")
    assert design.hw == design.family.hardware_model()
    assert dict(design.decisions.values) == dict(design.family.decision_defaults())


def test_every_preset_is_a_buildable_design_with_the_presets_values() -> None:
    assert presets()
    for name, family in presets().items():
        design = resolve_accelerator(name)
        design.require_buildable()
        shipped = registry.load(registry.BACKENDS, family).presets()[name]
        assert {key: hardware(design)[key] for key in shipped} == dict(shipped)


def test_overrides_lie_over_the_file_and_the_file_over_the_preset(tmp_path: Path) -> None:
    path = tmp_path / "d.yaml"
    path.write_text("family: systolic\npreset: gemmini_16x16\nhardware: {rows: 4, columns: 4}\n")
    preset, design = resolve_accelerator("gemmini_16x16"), resolve_accelerator(str(path), ["hardware.columns=8"])
    expected = {**hardware(preset), "rows": 4, "columns": 8}
    assert hardware(design) == expected


def test_a_run_configuration_lends_its_accelerator(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text("accelerator:\n  family: systolic\n  hardware:\n    rows: 4\n")
    (tmp_path / "c.yaml").write_text("include: base.yaml\nworkload: {model: zoo:mlp}\n")
    assert hardware(resolve_accelerator(str(tmp_path / "c.yaml")))["rows"] == 4
    (tmp_path / "base.yaml").write_text("accelerator:\n  family: systolic\n  hardware:\n    rows: 0\n")
    with pytest.raises(ConfigError, match=r"base.yaml:4: hardware.rows: must be at least 2, not 0"):
        resolve_accelerator(str(tmp_path / "c.yaml"))


@pytest.mark.parametrize(("value", "message"), [(1, "1 is not one of its values"), ("yes", "'yes' is not one")])
def test_a_decision_takes_only_its_own_values(value: object, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        design_of(AcceleratorConfig(family="systolic", decisions={"gather": value}), {})
    chosen = design_of(AcceleratorConfig(family="systolic", decisions={"gather": False}), {})
    assert chosen.decisions.get("gather", None) is False


def test_a_design_beyond_its_limits_names_them() -> None:
    with pytest.raises(InfeasibleError, match="clock") as caught:
        resolve_accelerator("systolic", ["hardware.clock_mhz=3999"]).require_buildable()
    assert caught.value.violations


def test_every_available_model_loads_and_has_macs() -> None:
    large = {f"zoo:{name}" for name, row in networks().items() if row.parameters > 20_000_000}
    for name in available_models():
        if name not in large:  # the zoo's tests count them
            assert load_workload(name, Path()).macs > 0


def test_a_broken_front_end_hides_no_other_and_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    real = registry.load

    def load(group: str, name: str) -> Any:
        if name == "onnx":
            raise UsageError("plug-in 'onnx' cannot be imported: no module")
        return real(group, name)

    monkeypatch.setattr(registry, "load", load)
    assert load_workload("zoo:mlp", Path()).macs > 0
    with pytest.raises(UsageError, match=r"no front end reads 'net.onnx'.*note: plug-in 'onnx' cannot be imported"):
        load_workload("net.onnx", Path())


def test_a_folder_is_no_model(tmp_path: Path) -> None:
    (tmp_path / "net.onnx").mkdir()
    with pytest.raises(ModelError, match="is not a file"):
        load_workload("net.onnx", tmp_path)


def test_a_level_the_family_lacks_is_refused() -> None:
    with pytest.raises(UsageError, match="level 'D' is not offered by systolic"):
        simulate(load_workload("zoo:mlp", Path()), resolve_accelerator("systolic"), level="D")


@pytest.mark.parametrize("level", ["A", "B", "C"])
def test_a_timeline_ends_when_the_metrics_say(level: str) -> None:
    result = simulate(
        load_workload("zoo:tiny_cnn", Path()), resolve_accelerator("systolic"), level=level, with_timeline=True
    )
    assert result.timeline is not None
    assert result.timeline.total_cycles == result.metrics.cycles
    plain = simulate(result.graph, result.design, level="A")
    assert plain.timeline is None
    assert plain.metrics.cycles == result.metrics.cycles


def test_a_family_without_rtl_says_why(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    design = resolve_accelerator("systolic")
    monkeypatch.setattr(type(design.family), "rtl", lambda self, hw: RtlUnavailable("a table, not a circuit"))
    with pytest.raises(UsageError, match="a table, not a circuit"):
        emit_design(design, tmp_path / "rtl")
    assert not (tmp_path / "rtl").exists()
