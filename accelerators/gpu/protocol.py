"""How a time was taken: what a measurement adds to the kernel itself.

`graph`: kernels replayed in a CUDA graph. `stream`: calls queued back to back on a stream. `eager`: every call goes
through a framework's dispatcher, and no call is shorter than the host needs for it. A model of hardware that leaves
the protocol out is wrong by more than any term of its microarchitecture on small kernels.
"""

from __future__ import annotations

from typing import Literal

import numpy as np

from accelerators.gpu.gemm_kernel import FloatArray

Protocol = Literal["graph", "stream", "eager"]
PROTOCOLS: tuple[Protocol, ...] = ("graph", "stream", "eager")


def observed_seconds(kernel_s: FloatArray, protocol: Protocol, launch_us: float, host_us: float) -> FloatArray:
    """Times that a protocol reports for kernels of `kernel_s` seconds; any shape."""
    total = kernel_s + launch_us * 1e-6
    return np.maximum(total, host_us * 1e-6) if protocol == "eager" else total
