"""NIR, the Neuromorphic Intermediate Representation: spiking networks in HDF5 files."""

from workloads.nir.frontend import NirFrontend
from workloads.nir.options import NirOptions
from workloads.nir.reader import read_nir

__all__ = ["NirFrontend", "NirOptions", "read_nir"]
