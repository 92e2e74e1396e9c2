"""The Verilog of one design, without any network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml

from dse.backend.protocol import RtlUnavailable
from dse.core.errors import UsageError
from dse.flow.accelerator import Design
from dse.rtl.emit import machine_verilog


def emit_design(design: Design, folder: Path) -> list[Path]:
    """Write `rtl/<family>.v` and `design.yaml` (which `--accelerator` reads back) into `folder`.

    Raises
    ------
    InfeasibleError: the design breaks a limit of its family.
    UsageError: the family emits no RTL for it; the reason is named.
    DseError: there is no Yosys to convert with.
    """
    design.require_buildable()
    component = design.family.rtl(design.hw)
    name = design.family.name
    if isinstance(component, RtlUnavailable):
        raise UsageError(f"{name} emits no RTL for this design: {component.reason}")
    return emit_component(design, component, folder)


def emit_component(design: Design, component: Any, folder: Path) -> list[Path]:
    """Write the files of `emit_design` for the component that `design.family.rtl` has made.

    Raises
    ------
    DseError: there is no Yosys to convert with.
    """
    name = design.family.name
    # before the conversion, which takes seconds: a folder that cannot be made is known at once
    parameters = write_design(design, folder)
    source = folder / "rtl" / f"{name}.v"
    source.parent.mkdir(exist_ok=True)
    source.write_text(machine_verilog(component, name), encoding="utf-8")
    return [source, parameters]


def write_design(design: Design, folder: Path) -> Path:
    """Write `design.yaml`, which `--accelerator` reads back."""
    folder.mkdir(parents=True, exist_ok=True)
    parameters = folder / "design.yaml"
    document = {"family": design.family.name, "hardware": design.hw.model_dump(mode="json")}
    parameters.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return parameters
