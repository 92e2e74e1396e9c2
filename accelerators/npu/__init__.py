"""Neural processing units: a MAC array over channels and pixels, decoupled DMA, encoded weights, a vector unit."""

from accelerators.npu.family import NpuAccelerator

__all__ = ["NpuAccelerator"]
