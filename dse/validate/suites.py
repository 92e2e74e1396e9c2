"""Which suites there are and where in a folder of references their files lie."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from dse.core.errors import UsageError
from dse.core.registry import load, names
from dse.validate.dram import dram_closed_form_suite, dram_suite
from dse.validate.eyeriss_suite import eyeriss_suite
from dse.validate.peer_suites import nvdla_layers_suite, nvdla_rates_suite, vela_suite
from dse.validate.scalesim import scalesim_suite
from dse.validate.suite import Suite
from dse.validate.tech_suites import area_suite, chips_suite, sram_prices_suite, sram_suite

_SUITES: Mapping[str, tuple[str, Callable[[Path], Suite]]] = {
    "scalesim": ("systolic/scalesim_calc.csv", scalesim_suite),
    "vela": ("npu/vela_networks.csv", vela_suite),
    "nvdla_layers": ("seeds/nvdla_perf_per_layer.csv", nvdla_layers_suite),
    "nvdla_rates": ("npu/nvdla_primer_table.csv", nvdla_rates_suite),
    "dram": ("systolic/dramsim3_patterns.csv", dram_suite),
    "dram_closed_form": ("systolic/dramsim3_patterns.csv", dram_closed_form_suite),
}

#: Entry points of suites that families bring along: a function without arguments that gives a `Suite`.
SUITES = "dse.suites"
#: Suites whose figures ship with the package.
_SHIPPED: Mapping[str, Callable[[], Suite]] = {
    "sram": sram_suite,
    "sram_prices": sram_prices_suite,
    "area": area_suite,
    "eyeriss": eyeriss_suite,
    "chips": chips_suite,
}


def shipped_suites() -> dict[str, Suite]:
    """The suites that need no folder of references, by name."""
    return {name: build() for name, build in _SHIPPED.items()} | {name: load(SUITES, name) for name in names(SUITES)}


def available_suites(folder: Path) -> dict[str, Suite]:
    """The suites whose reference files lie in `folder`, by name.

    Raises
    ------
    UsageError: `folder` holds none of the reference files, or one is damaged.
    """
    suites = {name: build(folder / file) for name, (file, build) in _SUITES.items() if (folder / file).is_file()}
    if not suites:
        files = ", ".join(file for file, _ in _SUITES.values())
        raise UsageError(f"{folder}: holds no reference file; looked for {files}")
    return suites
