"""einsum: kernels written as sums of products over named dims."""

from workloads.einsum.frontend import EinsumFrontend
from workloads.einsum.reader import read_model
from workloads.einsum.statement import parse_statement

__all__ = ["EinsumFrontend", "parse_statement", "read_model"]
