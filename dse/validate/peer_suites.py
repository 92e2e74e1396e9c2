"""Suites `vela`, `nvdla_layers`, `nvdla_rates`: peers' formulas as we re-derived them, against their own figures."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any

from dse.core import registry
from dse.ir import Graph
from dse.peers.nvdla_sheet import PRIMER, NvdlaConfiguration, SheetLayer, images_per_s, layer_cycles
from dse.peers.vela import NPUS, SYSTEMS, estimate
from dse.peers.vela.network import operations
from dse.validate.reference import read_rows
from dse.validate.suite import Comparison, Row, Suite

#: Vela unrolls recurrent layers, which a graph keeps whole.
_UNROLLED = ("tflm_mnist_lstm_int8",)
_WORST = {"u55": 0.15, "u65": None}
#: How the sheet counts each of its networks, and rows in which it departs from its own rule.
_GRANULE = {"AlexNet": 16, "GoogLeNet": 16, "ResNet50": 128}
_DENSE_BATCH = {"AlexNet": 16, "GoogLeNet": 1, "ResNet50": 1}
_UNTRANSFORMED = tuple(f"inception {block} 3x3" for block in ("3b", "4a", "4b", "4c", "4d", "4e", "5a", "5b"))


def vela_suite(path: Path) -> Suite:
    """Cycles of whole networks on U55 and U65, beside Vela's own runs; the networks lie in `models/` two folders up.

    Raises
    ------
    UsageError: the file cannot be read or lacks a column.
    """
    models = path.parent.parent / "models"
    rows = [
        row
        for row in read_rows(path, ("core", "model", "accelerator", "system", "memory_mode", "cycles_total"))
        if row["core"] == "regor" and row["accelerator"] in NPUS and _system(row) in SYSTEMS
        and row["model"] not in _UNROLLED and (models / f"{row['model']}.tflite").is_file()
    ]  # fmt: skip

    def run(row: Row) -> Sequence[Comparison]:
        npu = NPUS[row["accelerator"]]
        graph = _network(models / f"{row['model']}.tflite")
        cycles = estimate(operations(graph, npu), npu, SYSTEMS[_system(row)]).cycles
        bound = _WORST["u55" if "u55" in npu.name else "u65"]
        return [Comparison("cycles", float(cycles), float(row["cycles_total"]), bound=bound)]

    notes = ("the LSTM is left out: Vela unrolls it over time", "sizes of encoded weights are estimated from values")
    return Suite("vela", "ethos-u-vela 5.2.0 runs", rows, run, _vela_label, notes)


def nvdla_layers_suite(path: Path) -> Suite:
    """Rows of NVDLA's performance sheet at 2048 MACs, 512 KiB, 10 GB/s.

    Raises
    ------
    UsageError: the file cannot be read or lacks a column.
    """
    rows = read_rows(path, ("net", "layer", "type", "C", "H", "W", "K", "R", "S", "pad", "dram_traffic_KB_noSRAM"))
    return Suite(
        "nvdla_layers", "nvdla/hw performance sheet", rows, _sheet_row, lambda row: f"{row['net']} {row['layer']}"
    )


def nvdla_rates_suite(path: Path) -> Suite:
    """ResNet-50 rates of NVDLA's seven published sizes, from the sheet's ResNet-50 rows.

    Raises
    ------
    UsageError: a file cannot be read or lacks a column.
    """
    rows = read_rows(path, ("macs", "resnet50_int8_fps"))
    sheet = read_rows(path.parent.parent / "seeds" / "nvdla_perf_per_layer.csv", ("net", "layer"))
    layers = [_sheet_layer(row) for row in sheet if row["net"] == "ResNet50"]
    sizes = {configuration.macs: configuration for configuration in PRIMER}

    def run(row: Row) -> Sequence[Comparison]:
        rate = images_per_s(layers, sizes[int(row["macs"])])
        return [Comparison("ResNet-50 images/s", rate, float(row["resnet50_int8_fps"]), bound=0.03)]

    return Suite("nvdla_rates", "nvdla.org primer", rows, run, lambda row: f"{row['macs']} MACs")


def _sheet_row(row: Row) -> Sequence[Comparison]:
    configuration = NvdlaConfiguration(2048, 512, 10, kernel_granule=_GRANULE[row["net"]])
    found = layer_cycles(_sheet_layer(row), configuration)
    figures = {
        "mac_cycles_noSRAM": found.mac_cycles,
        "dram_traffic_KB_noSRAM": found.dram_kib,
        "max_cycles_noSRAM": found.cycles,
    }
    return [Comparison(name, value, float(row[name]), bound=0.01) for name, value in figures.items() if row[name]]


def _sheet_layer(row: Row) -> SheetLayer:
    names = ("C", "H", "W", "K", "R", "S", "stride_v", "stride_h", "pool_h", "pool_sv")
    size = {name: int(float(row[name] or 1)) for name in names}
    pooled = row["pool"] == "True"
    return SheetLayer(
        row["layer"], size["C"], size["H"], size["W"], size["K"], size["R"], size["S"],
        padded=row["pad"] == "True", stride_height=size["stride_v"], stride_width=size["stride_h"],
        pool_window=size["pool_h"] if pooled else 1, pool_stride=size["pool_sv"] if pooled else 1,
        dense=row["type"] == "fc", dense_batch=_DENSE_BATCH[row["net"]], elementwise="elwise" in row["type"],
        transformed_weights=row["layer"] not in _UNTRANSFORMED,
    )  # fmt: skip


def _system(row: Row) -> str:
    return f"{row['system']}/{row['memory_mode']}"


def _vela_label(row: Row) -> str:
    return f"{row['model']} on {row['accelerator']}, {_system(row)}"


@cache
def _network(path: Path) -> Graph:
    frontend: Any = registry.load(registry.FRONTENDS, "tflite")
    graph: Graph = frontend.load(path.name, path.parent, {})
    return graph
