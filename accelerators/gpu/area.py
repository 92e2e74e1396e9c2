"""Die area of a GPU, for hypothetical designs: SMs, matrix units, L2, DRAM interface and a fixed rest."""

from __future__ import annotations

from collections.abc import Mapping

from accelerators.gpu.hardware import GpuHardware
from accelerators.gpu.power import node_scale, prices

#: The SM that `sm_mm2` prices: lanes, and the memories that scale its storage half.
_LANE_RATE, _STORAGE_KIB = 256.0, 256.0 + 228.0


def area_mm2(hw: GpuHardware) -> Mapping[str, float]:
    """Area by component in mm2; logic and L2 scale with the node, the DRAM interface's analog part does not."""
    table = prices()["area"]
    scale = node_scale(hw.node_nm, table["node_scale"])

    def price(name: str) -> float:
        return float(table[name]["value"])

    lanes, storage = hw.rates.fp32 / _LANE_RATE, (hw.register_kib + hw.shared_kib) / _STORAGE_KIB
    matrix = max(hw.rates.fp16, hw.rates.fp8 / 2, hw.rates.int8 / 2) if hw.tensor_cores else 0.0
    return {
        "sm": hw.sms * price("sm_mm2") * (lanes + storage) / 2 * scale,
        "matrix": hw.sms * price("matrix_mm2_per_kflop_clk") * matrix / 1024 * scale,
        "l2": hw.l2_mib * price("l2_mm2_mib") * scale,
        "dram_interface": hw.dram_gb_s * price(f"{hw.dram_standard}_phy_mm2_gb_s"),
        "fixed": price("fixed_mm2") * scale,
    }
