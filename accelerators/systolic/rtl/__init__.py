"""RTL of the systolic family: the matmul engine, weight or output stationary."""

from accelerators.systolic.rtl.matmul import MatmulEngine

__all__ = ["MatmulEngine"]
