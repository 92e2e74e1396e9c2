"""The errors that a tile program can end in."""

from __future__ import annotations

from dse.core.errors import DseError


class TileProgramError(DseError):
    """A tile program is malformed, damaged, or does not run to its end on its machine."""
