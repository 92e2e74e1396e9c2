"""Random NPUs and quantized LSTMs for the tests of the NPU family."""

from __future__ import annotations

import numpy as np

from accelerators.npu.hardware import NpuHardware


def random_npu(rng: np.random.Generator, **changes: object) -> NpuHardware:
    """A small NPU that can be built; `changes` replace single parameters."""
    columns = int(rng.choice([2, 4, 8, 16]))
    lanes = [lane for lane in (1, 2, 4, 8) if columns % lane == 0]
    values: dict[str, object] = {
        "input_channels": int(rng.choice([2, 3, 4, 8, 16])),
        "output_channels": columns,
        "pixels": int(rng.choice([1, 2, 3, 4])),
        "cores": int(rng.choice([1, 2])),
        "depthwise_taps": int(rng.choice([0, 1, 4])),
        "weight_encoding": bool(rng.integers(2)),
        "requantize": str(rng.choice(["ort", "q31"])),
        "activation_kib": float(rng.choice([2, 4, 16])),
        "weight_kib": float(rng.choice([2, 4, 16])),
        "accumulator_kib": float(rng.choice([1, 4, 8])),
        "weight_banks": int(rng.choice([1, 2, 8])),
        "vector_lanes": int(rng.choice(lanes)),
        "state_kib": 4.0,
        "dma_channels": int(rng.choice([1, 2])),
        "feature_bytes_per_cycle": int(rng.choice([1, 4, 8])),
        "constant_bytes_per_cycle": float(rng.choice([0.5, 1, 8])),
        "clock_mhz": 100.0,
        "descriptors": 65536,
    }
    return NpuHardware.model_validate({**values, **changes})
