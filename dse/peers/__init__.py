"""Peers' published formulas, for validation and comparison; never part of a search."""
