"""A network by a peer's formulas, named as `PEER:SETTING`: figures to stand beside our own, never searched."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from dse.core.errors import ModelError, UsageError, nearest
from dse.ir import Graph, Op
from dse.ir.loopnest import LoopNest, loop_nest
from dse.peers import nvdla_sheet, scalesim
from dse.peers.nvdla_sheet import PRIMER, NvdlaConfiguration, SheetLayer
from dse.peers.vela import NPUS, SYSTEMS, estimate
from dse.peers.vela.network import operations

_DATAFLOWS = ("os", "ws", "is")
#: System of the Vela peer when none is named.
_VELA_SYSTEM = {"u55": "Ethos_U55_High_End_Embedded/Shared_Sram", "u65": "Ethos_U65_High_End/Shared_Sram"}


@dataclass(frozen=True)
class PeerEstimate:
    """What a peer says of a network: cycles at a clock, MACs it could do a cycle, and what it leaves out."""

    name: str
    cycles: float
    clock_mhz: float
    macs_per_cycle: float
    scope: str

    @property
    def latency_ms(self) -> float:
        return self.cycles / self.clock_mhz * 1e-3


@dataclass(frozen=True)
class Peer:
    """A peer: how a setting is written, what it is, and the estimate."""

    setting: str
    description: str
    estimate: Callable[[Graph, str], PeerEstimate]


def estimate_peer(graph: Graph, spec: str) -> PeerEstimate:
    """A prepared network by a peer.

    Parameters
    ----------
    spec
        `vela:ethos-u55-128`, with `@System/Memory_Mode` behind it for another system; `nvdla_sheet:2048`;
        `scalesim:32x32-ws`.

    Raises
    ------
    UsageError: no such peer or setting.
    ModelError: the network has nothing that the peer counts.
    """
    name, _, setting = spec.partition(":")
    if name not in PEERS:
        raise UsageError(f"{name!r} is not a peer{nearest(name, PEERS)}")
    return PEERS[name].estimate(graph, setting)


def _vela(graph: Graph, setting: str) -> PeerEstimate:
    name, _, system = setting.partition("@")
    if name not in NPUS:
        raise UsageError(f"{name!r} is not an NPU of Vela{nearest(name, NPUS)}")
    npu = NPUS[name]
    system = system or _VELA_SYSTEM["u55" if "u55" in name else "u65"]
    if system not in SYSTEMS:
        raise UsageError(f"{system!r} is not a system of Vela{nearest(system, SYSTEMS)}")
    ops = operations(graph, npu)
    if not ops:
        raise ModelError(f"{graph.source or graph.name}: nothing that Vela would put on the NPU")
    cycles = estimate(ops, npu, SYSTEMS[system]).cycles
    peak = float(npu.macs * npu.cores)
    return PeerEstimate(f"vela:{name}", cycles, SYSTEMS[system].core_clock_mhz, peak, f"NPU operations; {system}")


def _nvdla(graph: Graph, setting: str) -> PeerEstimate:
    sizes = {str(configuration.macs): configuration for configuration in PRIMER}
    if setting not in sizes:
        raise UsageError(f"{setting!r} is not a number of MACs of NVDLA's table{nearest(setting, sizes)}")
    configuration: NvdlaConfiguration = sizes[setting]
    layers = [_sheet_layer(graph, op) for op in graph.ops if op.kind in ("conv", "gemm")]
    if not layers:
        raise ModelError(f"{graph.source or graph.name}: no convolution or dense layer for NVDLA's sheet")
    cycles = math.fsum(nvdla_sheet.layer_cycles(layer, configuration).cycles for layer in layers)
    scope = "convolutions and dense layers, no start-up; a bound that silicon does not reach"
    return PeerEstimate(f"nvdla_sheet:{setting}", cycles, configuration.clock_mhz, float(configuration.macs), scope)


def _sheet_layer(graph: Graph, op: Op) -> SheetLayer:
    weight = graph[op.inputs[1]].shape
    if op.kind == "gemm":
        return SheetLayer(op.name, weight[1], 1, 1, weight[0], 1, 1, padded=False, dense=True)
    _, _, height, width = graph[op.inputs[0]].shape
    strides = op.attributes["strides"]
    # the sheet has no groups: a group's channels, all kernels
    return SheetLayer(
        op.name, weight[1], height, width, weight[0], weight[2], weight[3],
        padded=any(op.attributes["pads"]), stride_height=strides[0], stride_width=strides[1],
    )  # fmt: skip


def _scalesim(graph: Graph, setting: str) -> PeerEstimate:
    size, _, dataflow = setting.partition("-")
    rows, _, columns = size.partition("x")
    if not (rows.isdigit() and columns.isdigit() and dataflow in _DATAFLOWS):
        raise UsageError(f"{setting!r} is not an array of SCALE-Sim: write it as 32x32-ws ({', '.join(_DATAFLOWS)})")
    cycles = 0
    for op in graph.ops:
        if op.kind not in ("conv", "gemm", "matmul"):
            continue
        m, k, n, times = _product(loop_nest(graph, op))
        result = scalesim.compute_mode(m, k, n, int(rows), int(columns), dataflow)  # type: ignore[arg-type]
        cycles += times * (result.total_cycles + 1)
    if not cycles:
        raise ModelError(f"{graph.source or graph.name}: no product of matrices for SCALE-Sim")
    scope = "products of matrices in compute mode: memory never stalls; at 1 GHz"
    return PeerEstimate(f"scalesim:{setting}", cycles, 1000.0, float(int(rows) * int(columns)), scope)


def _product(nest: LoopNest) -> tuple[int, int, int, int]:
    """(outputs pixels, window, filters, how often) of a loop nest."""
    bounds = nest.bounds
    times = math.prod(size for name, size in bounds.items() if name == "G" or name.startswith("B"))
    pixels = math.prod(bounds.get(name, 1) for name in ("N", "P", "Q"))
    window = math.prod(bounds.get(name, 1) for name in ("C", "R", "S"))
    return pixels, window, bounds.get("M", 1), times


#: Peers by name.
PEERS: Mapping[str, Peer] = {
    "vela": Peer("NPU[@SYSTEM/MODE]", "Arm Vela 5.2's estimate for Ethos-U55 and U65", _vela),
    "nvdla_sheet": Peer("MACS", "NVDLA's open performance sheet at its seven published sizes", _nvdla),
    "scalesim": Peer("ROWSxCOLUMNS-DATAFLOW", "SCALE-Sim 3 in compute mode", _scalesim),
}
