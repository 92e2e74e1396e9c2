"""Accelerator families: each a room of its own, built on the public path of a plug-in."""
