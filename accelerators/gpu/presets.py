"""The GPUs that ship: parameters with a source for every field."""

from __future__ import annotations

from collections.abc import Mapping
from functools import cache
from importlib import resources
from pathlib import Path
from typing import Any

import yaml
from pydantic import ValidationError

from accelerators.gpu.constants import check_overrides
from accelerators.gpu.hardware import GpuHardware
from dse.core.errors import UsageError, nearest


@cache
def preset_documents() -> Mapping[str, Mapping[str, Any]]:
    """Every shipped preset as read: description, source, hardware, sources by field."""
    folder = resources.files("accelerators.gpu") / "presets"
    return {
        item.name.removesuffix(".yaml"): yaml.safe_load(item.read_text(encoding="utf-8"))
        for item in sorted(folder.iterdir(), key=lambda entry: entry.name)
        if item.name.endswith(".yaml")
    }


@cache
def preset(name: str) -> GpuHardware:
    """A shipped GPU by name.

    Raises
    ------
    UsageError: no preset has that name.
    """
    documents = preset_documents()
    if name not in documents:
        raise UsageError(f"{name!r} is not a GPU preset{nearest(name, documents)}")
    return GpuHardware(**preset_hardware(name))


def preset_hardware(name: str) -> dict[str, Any]:
    """Parameters of a shipped GPU; its energies hold at its own boost clock, whatever clock is asked for later."""
    hardware = preset_documents()[name]["hardware"]
    return {"nominal_clock_mhz": hardware["clock_mhz"], **hardware}


def load(path: Path) -> GpuHardware:
    """A GPU from a preset file, such as `dse calibrate gpu` writes.

    Raises
    ------
    UsageError: the file cannot be read, is no GPU preset, or holds a value out of its bounds.
    """
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, yaml.YAMLError) as error:
        raise UsageError(f"{path}: preset cannot be read: {' '.join(str(error).split())}") from error
    if not isinstance(document, dict) or document.get("family") != "gpu" or "hardware" not in document:
        raise UsageError(f"{path}: a GPU preset has the keys family: gpu and hardware")
    try:
        hw = GpuHardware(**document["hardware"])
    except (ValidationError, TypeError) as error:
        raise UsageError(f"{path}: {' '.join(str(error).split())}") from error
    check_overrides(hw.constants)
    return hw
