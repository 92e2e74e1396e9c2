"""Cycles of a time step of the keyword LSTM by array size and weight memory: `python benchmarks/recurrent.py`."""

from __future__ import annotations

import sys
from pathlib import Path

from accelerators.systolic import SystolicAccelerator
from accelerators.systolic.hardware import SystolicHardware
from dse.backend import Decisions
from dse.compiler import prepare
from dse.flow.workload import load_workload

_STEPS = 49
_SIZES = (4, 8, 16, 32, 64)


def main() -> None:
    """Print the table as Markdown."""
    graph = prepare(load_workload("zoo:lstm_kws", Path()))
    rows = ["| array | weights | cycles a step | waiting for memory |", "|---|---|---|---|"]
    for weight_kib in (256, 16):
        for size in _SIZES:
            hw = SystolicHardware(
                rows=size, columns=size, state_kib=8, weight_kib=weight_kib, accumulator_kib=64, activation_kib=16,
                parameter_channels=512, vector_lanes=4, clock_mhz=200,
            )  # fmt: skip
            metrics = SystolicAccelerator().lower(graph, hw, Decisions()).estimate()
            layer = next(layer for layer in metrics.layers if layer.kind == "lstm")
            share = layer.losses["memory_stall"] / layer.cycles
            kept = "resident" if "resident" in layer.mapping else "streamed"
            rows.append(f"| {size} x {size} | {kept} | {layer.cycles // _STEPS:,} | {share:.0%} |")
    sys.stdout.write("\n".join(rows) + "\n")


if __name__ == "__main__":
    main()
