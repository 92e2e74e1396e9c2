"""Mappings of loop nests onto a memory hierarchy."""

from dse.mapping.mapping import Mapping, TemporalLevel

__all__ = ["Mapping", "TemporalLevel"]
