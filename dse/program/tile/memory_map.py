"""What lies where in external memory and for how long."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Region:
    """Bytes [base, base + bytes) of memory, in use from step `first` to step `last`, both included.

    Inputs are in use from step 0, outputs to one step behind the last, constants always. Regions that are never in
    use together may share bytes.
    """

    name: str
    kind: str  # "tensor", "weights", "parameters" or "zero points"
    base: int
    bytes: int
    first: int
    last: int


@dataclass(frozen=True)
class MemoryMap:
    """All regions, and how well the activations' addresses use memory.

    `activation_bound` is the largest sum of activation bytes that are live in one step: no placement needs less.
    """

    regions: tuple[Region, ...]
    activation_peak: int
    activation_bound: int
    constants_bytes: int
