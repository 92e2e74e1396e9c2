"""Errors, the plug-in registry, units and progress: what every other room may use."""
