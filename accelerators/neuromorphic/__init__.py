"""Neuromorphic cores on a mesh: spiking networks from NIR or converted, simulated bit for bit, mapped and priced."""

from accelerators.neuromorphic.family import NeuromorphicAccelerator

__all__ = ["NeuromorphicAccelerator"]
