"""GPUs: analytical kernel models, calibrated on a few physical constants, under a power limit.

Public: the back end `GpuAccelerator`; `GpuHardware` and `preset`; kernel estimates (`gemm`, `convolution`, `depthwise`,
`elementwise`, `row_wise`, `reduction`, `attention`, `recurrent`), each an `Estimate`; `observed_seconds` for the
protocol; `under_power_limit`, `static_watts` and `area_mm2`; `fit_all` and `validate` on `Measured` rows.
"""

from accelerators.gpu.area import area_mm2
from accelerators.gpu.attention import attention
from accelerators.gpu.calibration import Fit, fit_all
from accelerators.gpu.conv import ConvProblems, convolution, depthwise
from accelerators.gpu.estimate import Estimate
from accelerators.gpu.family import GpuAccelerator
from accelerators.gpu.gemm import gemm
from accelerators.gpu.hardware import DTYPES, GpuHardware, Rates
from accelerators.gpu.measured import Measured, predict
from accelerators.gpu.power import PowerEstimate, static_watts, under_power_limit
from accelerators.gpu.presets import load, preset, preset_documents
from accelerators.gpu.protocol import PROTOCOLS, observed_seconds
from accelerators.gpu.recurrent import RecurrentProblems, persistent_fits, recurrent
from accelerators.gpu.stream import elementwise, reduction, row_wise
from accelerators.gpu.tool import GpuCalibration
from accelerators.gpu.validation import Score, validate

__all__ = [
    "DTYPES",
    "PROTOCOLS",
    "ConvProblems",
    "Estimate",
    "Fit",
    "GpuAccelerator",
    "GpuCalibration",
    "GpuHardware",
    "Measured",
    "PowerEstimate",
    "Rates",
    "RecurrentProblems",
    "Score",
    "area_mm2",
    "attention",
    "convolution",
    "depthwise",
    "elementwise",
    "fit_all",
    "gemm",
    "load",
    "observed_seconds",
    "persistent_fits",
    "predict",
    "preset",
    "preset_documents",
    "recurrent",
    "reduction",
    "row_wise",
    "static_watts",
    "under_power_limit",
    "validate",
]
