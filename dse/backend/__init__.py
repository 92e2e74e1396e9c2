"""What an accelerator family must provide to join: the Accelerator protocol and its knobs."""

from dse.backend.protocol import (
    Accelerator,
    Capabilities,
    Decisions,
    HardwareCost,
    Knob,
    Numerics,
    RtlRun,
    RtlUnavailable,
    Samples,
    VerificationCase,
)

__all__ = [
    "Accelerator",
    "Capabilities",
    "Decisions",
    "HardwareCost",
    "Knob",
    "Numerics",
    "RtlRun",
    "RtlUnavailable",
    "Samples",
    "VerificationCase",
]
