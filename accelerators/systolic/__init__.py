"""Systolic arrays: weight- or output-stationary, with scratchpads, vector unit, sequencer and RTL."""

from accelerators.systolic.family import SystolicAccelerator

__all__ = ["SystolicAccelerator"]
