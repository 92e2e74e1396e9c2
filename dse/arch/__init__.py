"""Accelerators as data: memory hierarchy, spatial fabric, compute."""

from dse.arch.arch import Arch, Compute, MemoryLevel, SpatialAxis
from dse.arch.prices import Prices

__all__ = ["Arch", "Compute", "MemoryLevel", "Prices", "SpatialAxis"]
