"""How a long run tells where it is: a bar on a terminal, plain lines in a log, nothing in a test.

Progress and messages go to the error stream, tables (results) to the output stream, so that results can
be piped. Rich is imported when the first bar or table is drawn, not with this module.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Iterable, Sequence
from typing import IO, TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

#: Seconds between two progress lines in a log.
LINE_INTERVAL_S = 5.0


class Reporter(Protocol):
    """What the stages of a run tell while they work.

    Call order: `stage` opens a stage (and ends the one before), `advance` counts its steps, `message` and
    `table` may come at any time, `close` ends the last stage.
    """

    def stage(self, name: str, total: int | None = None) -> None:
        """Begin a stage of `total` steps; None when the number is unknown."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Count finished steps of the current stage; `note` is shown beside the bar."""

    def message(self, text: str) -> None:
        """Say one line."""

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print a table of results; a column is right-aligned when all its cells are numbers."""

    def close(self) -> None:
        """End the current stage."""


class SilentReporter:
    """Says nothing: for library use and tests."""

    def stage(self, name: str, total: int | None = None) -> None:
        """Ignore a stage."""

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Ignore progress."""

    def message(self, text: str) -> None:
        """Ignore a message."""

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Ignore a table."""

    def close(self) -> None:
        """Nothing to end."""


class PlainReporter:
    """Lines for logs: one when a stage begins, at most one each `LINE_INTERVAL_S`, one when it ends."""

    def __init__(
        self,
        progress: IO[str] | None = None,
        results: IO[str] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._progress = progress or sys.stderr
        self._results = results or sys.stdout
        self._clock = clock
        self._name: str | None = None
        self._total: int | None = None
        self._done = 0
        self._last_line = 0.0

    def stage(self, name: str, total: int | None = None) -> None:
        """Begin a stage with a line."""
        self.close()
        self._name, self._total, self._done = name, total, 0
        self._last_line = self._clock()
        self.message(f"{name} ...")

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Count steps; print when the last line is old."""
        self._done += steps
        # the last step is told by `close`
        if self._done != self._total and self._clock() - self._last_line >= LINE_INTERVAL_S:
            self._last_line = self._clock()
            self.message(f"{self._name}: {self._count()}{' ' + note if note else ''}")

    def message(self, text: str) -> None:
        """Print one line to the progress stream."""
        self._progress.write(text + "\n")
        self._progress.flush()

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """Print a table of plain characters to the results stream, never cut to a width."""
        self._results.write(plain_table(title, columns, rows))
        self._results.flush()

    def close(self) -> None:
        """End the stage with its count."""
        if self._name is not None and self._done:
            self.message(f"{self._name}: {self._count()} done")
        self._name = None

    def _count(self) -> str:
        return f"{self._done}/{self._total}" if self._total is not None else str(self._done)


class TerminalReporter:
    """A live progress bar (rich) on a terminal."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task: TaskID | None = None

    def stage(self, name: str, total: int | None = None) -> None:
        """Begin a stage with its own bar; an unknown total shows a moving bar."""
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        self.close()
        self._bar = Progress(
            TextColumn("{task.description}", markup=False),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[note]}", markup=False),
            console=Console(stderr=True),
        )
        self._bar.start()
        self._task = self._bar.add_task(name, total=total, note="")

    def advance(self, steps: int = 1, note: str = "") -> None:
        """Move the bar."""
        if self._bar is not None and self._task is not None:
            self._bar.update(self._task, advance=steps)
            if note:
                self._bar.update(self._task, note=note)

    def message(self, text: str) -> None:
        """Print one line above the bar."""
        if self._bar is not None:
            self._bar.console.print(text, markup=False, highlight=False)
        else:
            sys.stderr.write(text + "\n")

    def table(self, title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
        """End the bar (two live streams on one terminal would tear) and print the table."""
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        self.close()
        table = Table(title=Text(title), title_justify="left", header_style="bold", box=None, pad_edge=False)
        for index, column in enumerate(columns):
            numeric = _numeric(row[index] for row in rows)
            table.add_column(Text(column), justify="right" if numeric else "left", overflow="fold")
        for row in rows:
            table.add_row(*(Text(str(cell)) for cell in row))
        Console().print(table)

    def close(self) -> None:
        """End the bar; a bar of unknown length is shown full."""
        if self._bar is not None and self._task is not None:
            task = self._bar.tasks[0]
            if task.total is None:
                self._bar.update(self._task, total=max(1, task.completed), completed=max(1, task.completed))
            self._bar.stop()
        self._bar = self._task = None


def make_reporter(*, quiet: bool = False) -> Reporter:
    """The reporter that suits the process: silent, a bar on a terminal, or plain lines."""
    if quiet:
        return SilentReporter()
    return TerminalReporter() if sys.stderr.isatty() and sys.stdout.isatty() else PlainReporter()


def plain_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """A table as text, columns padded to their widest cell, ending in a newline."""
    cells = [list(columns), *([str(cell) for cell in row] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    right = [_numeric(row[index] for row in rows) for index in range(len(columns))]
    lines = [title] if title else []
    for line in cells:
        padded = (
            text.rjust(width) if numeric else text.ljust(width)
            for text, width, numeric in zip(line, widths, right, strict=True)
        )
        lines.append("  ".join(padded).rstrip())
    return "\n".join(lines) + "\n"


def _numeric(cells: Iterable[object]) -> bool:
    """Whether all cells read as numbers (digits, separators, a trailing %), '' and '-' aside."""
    seen = False
    for cell in cells:
        text = str(cell).strip()
        if text in ("", "-"):
            continue
        try:
            float(text.replace(",", "").rstrip("%"))
        except ValueError:
            return False
        seen = True
    return seen
