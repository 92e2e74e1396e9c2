"""Errors that a user may see: one clear line each, with the exit code it leads to.

Every error the tool raises on purpose derives from `DseError`; anything else that reaches the
command line is our bug and ends with exit code 1 and a traceback.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

EXIT_OK = 0
EXIT_BUG = 1
EXIT_USAGE = 2
EXIT_INFEASIBLE = 3
EXIT_INTERRUPTED = 130


class DseError(Exception):
    """Base of every deliberate error; `exit_code` is what the `dse` command returns for it."""

    exit_code: int = EXIT_USAGE


class UsageError(DseError):
    """A flag, a name or a path on the command line is wrong."""


class ConfigError(DseError):
    """A configuration is wrong: names file, line, key, value and the nearest valid choice.

    Parameters
    ----------
    message
        What is wrong, in one sentence without the position.
    file, line, key
        Where; each may be None when unknown. `line` counts from 1.
    """

    def __init__(
        self, message: str, *, file: str | None = None, line: int | None = None, key: str | None = None
    ) -> None:
        self.file, self.line, self.key = file, line, key
        position = f"{file}:{line}: " if file and line else f"{file}: " if file else ""
        super().__init__(f"{position}{key + ': ' if key else ''}{message}")


class ModelError(DseError):
    """A network file cannot be read or uses something unsupported: names file, node and op."""


class RunFolderError(DseError):
    """A run folder cannot be used as asked (other version, other inputs, damaged)."""


@dataclass(frozen=True)
class Violation:
    """One limit that a design breaks.

    `excess` is how far the value lies beyond the limit, relative to the limit (> 0 when broken);
    the search hands it to the sampler as a constraint value.
    """

    limit: str
    value: float
    bound: float
    unit: str
    hint: str = ""

    @property
    def excess(self) -> float:
        """Relative distance beyond the bound; positive when the limit is broken."""
        return abs(self.value - self.bound) / max(abs(self.bound), 1e-30)

    def __str__(self) -> str:
        text = f"{self.limit}: {self.value:g} {self.unit} against a bound of {self.bound:g} {self.unit}"
        return f"{text} ({self.hint})" if self.hint else text


class InfeasibleError(DseError):
    """A design cannot exist or cannot run the network: carries the limits it breaks."""

    exit_code = EXIT_INFEASIBLE

    def __init__(self, subject: str, violations: Sequence[Violation]) -> None:
        self.violations = tuple(violations)
        super().__init__(f"{subject}: " + "; ".join(str(v) for v in self.violations))


class InvariantError(Exception):
    """An invariant of the models broke (cycles below the peak bound, parts that do not sum up): our bug."""


def nearest(name: str, choices: Iterable[str]) -> str:
    """A '; did you mean ...' tail for an unknown `name`, with all choices when they are few."""
    options = sorted(choices)
    close = difflib.get_close_matches(name, options, n=1, cutoff=0.5)
    tail = f"; did you mean {close[0]!r}?" if close else ";"
    shown = ", ".join(options) if len(options) <= 24 else ", ".join(options[:24]) + ", ..."
    return f"{tail} ({shown})" if options else tail.rstrip(";")
