"""Timing engines A (compiled fold, for the search), B (compiled, with sharing), C (SimPy, the reference); traces."""

from dse.sim.level_a import simulate_a
from dse.sim.level_b import simulate_b
from dse.sim.level_c import simulate_c
from dse.sim.trace import perfetto_trace

__all__ = ["perfetto_trace", "simulate_a", "simulate_b", "simulate_c"]
