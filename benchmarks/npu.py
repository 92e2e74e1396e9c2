"""What docs/npu.md prints: our NPU beside Vela, NVDLA's RTL, VDLA and NVDLA's published area and power.

    python benchmarks/npu.py REFERENCES [vela] [nvdla] [vdla] [area] [lstm]

REFERENCES is the folder of reference files (npu/*.csv, models/*.tflite); without names all tables are printed.
"""

from __future__ import annotations

import csv
import statistics
import sys
from pathlib import Path

from accelerators.npu import NpuAccelerator
from accelerators.npu.cost import area_um2
from accelerators.npu.executable import NpuExecutable
from accelerators.npu.nvdla import parse_trace, run_time
from dse.backend import Decisions
from dse.compiler import prepare
from dse.flow.workload import load_workload
from dse.ir import Graph
from dse.peers.vela import NPUS, SYSTEMS, estimate
from dse.peers.vela.network import operations

FAMILY = NpuAccelerator()
NETWORKS = ("kws_dscnn_int8", "ic_resnet8_int8", "vww_mbv1_025_96_int8", "ad01_autoencoder_int8")
LSTM = "tflm_mnist_lstm_int8"
HIGH_END = "Ethos_U55_High_End_Embedded"
#: Weights lie in the SRAM of the feature maps: vela.ini, Sram_Only.
SRAM_ONLY = {"constant_storage": "sram", "constant_bytes_per_cycle": 8, "constant_latency_cycles": 32}


def say(line: str) -> None:
    """A line of output, at once."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def compiled(graph: Graph, preset: str, decisions: Decisions | None = None, **changes: object) -> NpuExecutable:
    """A network on a preset."""
    hw = FAMILY.hardware_model.model_validate({**FAMILY.presets()[preset], **changes})
    return FAMILY.lower(graph, hw, decisions or Decisions())


def rows(path: Path) -> list[dict[str, str]]:
    """A reference file without its comments."""
    with path.open(newline="") as stream:
        return list(csv.DictReader(line for line in stream if not line.startswith("#")))


def recorded(folder: Path) -> dict[tuple[str, str, str], float]:
    """Cycles of Vela's runs by model, NPU and memory mode."""
    return {
        (row["model"], row["accelerator"], row["memory_mode"]): float(row["cycles_total"])
        for row in rows(folder / "npu" / "vela_networks.csv")
        if row["core"] == "regor" and row["system"] == HIGH_END
    }


def vela(folder: Path) -> None:
    """Ours, the peer model and Vela itself on U55."""
    say("| network | MACs | memory | Vela | peer model | ours | ours/Vela | ours in host ops |")
    say("|---|---|---|---|---|---|---|---|")
    ratios = []
    for model in NETWORKS:
        graph = load_workload(str(folder / "models" / f"{model}.tflite"), Path())
        for macs in (32, 64, 128, 256):
            for mode in ("Sram_Only", "Shared_Sram"):
                npu = NPUS[f"ethos-u55-{macs}"]
                peer = estimate(operations(graph, npu), npu, SYSTEMS[f"{HIGH_END}/{mode}"]).cycles
                changes = SRAM_ONLY if mode == "Sram_Only" else {}
                metrics = compiled(graph, f"ethos_u55_{macs}", **changes).estimate()
                host = sum(layer.cycles for layer in metrics.layers if layer.kind.startswith("host"))
                published = recorded(folder)[model, npu.name, mode]
                ratios.append(metrics.cycles / published)
                say(
                    f"| {model.removesuffix('_int8')} | {macs} | {mode} | {published:,.0f} | {peer:,} | "
                    f"{metrics.cycles:,} | {ratios[-1]:.2f} | {host / metrics.cycles:.1%} |"
                )
    say(f"ours/Vela: median {statistics.median(ratios):.2f}, least {min(ratios):.2f}, most {max(ratios):.2f}")


def nvdla(folder: Path) -> None:
    """nv_small traces: cycles and bytes."""
    say("| trace | model | RTL | error | bytes exact |")
    say("|---|---|---|---|---|")
    for row in rows(folder / "npu" / "nvdla_nv_small_rtl.csv"):
        if row["trace"].startswith("dc_"):
            time = run_time(parse_trace(row["trace"], int(row["out_bytes"])))
            exact = (time.input_bytes, time.weight_bytes, time.output_bytes) == tuple(
                int(row[name]) for name in ("in_bytes", "weight_bytes", "out_bytes")
            )
            error = time.cycles / int(row["cycles"]) - 1
            say(f"| {row['trace']} | {time.cycles:,} | {int(row['cycles']):,} | {error:+.1%} | {exact} |")


def vdla() -> None:
    """Latency hiding on ResNet-18."""
    graph = prepare(load_workload("zoo:resnet18", Path()))
    metrics = [compiled(graph, "vdla", Decisions({"latency_hiding": on})).estimate() for on in (False, True)]
    say("| layer | latency hiding off | on |")
    say("|---|---|---|")
    best = [0.0, 0.0]
    for layers in zip(metrics[0].layers, metrics[1].layers, strict=True):
        if layers[0].useful_macs:
            used = [layer.utilization(256) for layer in layers]
            best = [max(a, b) for a, b in zip(best, used, strict=True)]
            say(f"| {layers[0].name} | {used[0]:.1%} | {used[1]:.1%} |")
    say(f"| peak over layers (published 70 % and 88 %) | {best[0]:.1%} | {best[1]:.1%} |")


def area(folder: Path) -> None:
    """NVDLA's seven points: area at 28 and 16 nm, average power at 16 nm on ResNet-50; PHYs and DRAM left out."""
    graph = prepare(load_workload("zoo:resnet50", Path()))
    say("| MACs | 28 nm mm2, published | ours | 16 nm | ours | average mW | ours |")
    say("|---|---|---|---|---|---|---|")
    for row in rows(folder / "npu" / "nvdla_primer_table.csv"):
        preset = f"nvdla_{row['macs']}"
        cells = []
        for node in (28, 16):
            hw = FAMILY.hardware_model.model_validate({**FAMILY.presets()[preset], "node_nm": node})
            mm2 = sum(value for name, value in area_um2(hw).items() if not name.endswith("_phy")) * 1e-6
            published = float(row[f"area_mm2_{node}nm"])
            cells.append(f"{published} | {mm2:.2f} ({mm2 / published - 1:+.0%})")
        metrics = compiled(graph, preset).estimate()
        spent = sum(v for name, v in metrics.energy_pj.items() if name not in ("static", "external_memory"))
        standing = sum(v for name, v in metrics.static_mw.items() if not name.endswith("_phy"))
        power, published = spent / (metrics.latency_ms * 1e6) + standing, float(row["power_avg_mW_16nm"])
        cells.append(f"{published:.0f} | {power:.0f} ({power / published - 1:+.0%})")
        say(f"| {row['macs']} | {' | '.join(cells)} |")


def lstm(folder: Path) -> None:
    """A looped LSTM beside Vela's unrolled one at equal MACs."""
    graph = load_workload(str(folder / "models" / f"{LSTM}.tflite"), Path())
    say("| MACs | memory | Vela, unrolled | ours, looped | of it the lstm | times fewer |")
    say("|---|---|---|---|---|---|")
    for macs in (32, 64, 128, 256):
        for mode, changes in (("Sram_Only", SRAM_ONLY), ("Shared_Sram", {})):
            published = recorded(folder)[LSTM, f"ethos-u55-{macs}", mode]
            metrics = compiled(graph, f"ethos_u55_{macs}", **changes).estimate()
            own = sum(layer.cycles for layer in metrics.layers if layer.kind == "lstm")
            times = published / metrics.cycles
            say(f"| {macs} | {mode} | {published:,.0f} | {metrics.cycles:,} | {own:,} | {times:.1f} |")


def main() -> None:
    """Print the tables that are named, or all."""
    folder, names = Path(sys.argv[1]), sys.argv[2:]
    tables = {
        "vela": lambda: vela(folder), "nvdla": lambda: nvdla(folder), "vdla": vdla, "area": lambda: area(folder),
        "lstm": lambda: lstm(folder),
    }  # fmt: skip
    for name, table in tables.items():
        if not names or name in names:
            say(f"\n{name}")
            table()


if __name__ == "__main__":
    main()
