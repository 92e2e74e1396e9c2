"""Timing engines: level A (compiled, for the search), level C (SimPy, the reference), and traces of what they find."""

from dse.sim.level_a import simulate_a
from dse.sim.level_c import simulate_c
from dse.sim.trace import perfetto_trace

__all__ = ["perfetto_trace", "simulate_a", "simulate_c"]
