"""Accelerators as data: memory hierarchy, spatial fabric, compute."""

from dse.arch.arch import Arch, Compute, MemoryLevel, SpatialAxis

__all__ = ["Arch", "Compute", "MemoryLevel", "SpatialAxis"]
