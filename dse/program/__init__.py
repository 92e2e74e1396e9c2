"""Programs: the timing view that all families share (TaskGraph, Timeline), the tile descriptors, Executable."""
