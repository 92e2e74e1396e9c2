"""Tile descriptors: instruction set, encoding, expansion of loops, interpreter, checker."""
