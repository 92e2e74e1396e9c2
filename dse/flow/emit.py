"""The Verilog of one design, without any network."""

from __future__ import annotations

from pathlib import Path

import yaml

from dse.backend.protocol import RtlUnavailable
from dse.core.errors import UsageError
from dse.flow.accelerator import Design


def emit_design(design: Design, folder: Path) -> list[Path]:
    """Write `<family>.v` and `design.yaml` (which `--accelerator` reads back) into `folder`.

    Raises
    ------
    InfeasibleError: the design breaks a limit of its family.
    UsageError: the family emits no RTL for it; the reason is named.
    """
    design.require_buildable()
    component = design.family.rtl(design.hw)
    name = design.family.name
    if isinstance(component, RtlUnavailable):
        raise UsageError(f"{name} emits no RTL for this design: {component.reason}")
    # Amaranth takes a fifth of a second to import, and only families with RTL need it
    from amaranth.back import verilog

    text: str = verilog.convert(component, name=name)
    folder.mkdir(parents=True, exist_ok=True)
    source, parameters = folder / f"{name}.v", folder / "design.yaml"
    source.write_text(text, encoding="utf-8")
    document = {"family": name, "hardware": design.hw.model_dump(mode="json")}
    parameters.write_text(yaml.safe_dump(document, sort_keys=False), encoding="utf-8")
    return [source, parameters]
