"""Amaranth library of tile machines: memories, DMA, sequencer, vector unit, test harness, emission."""
