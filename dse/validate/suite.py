"""The suite runner: rows of reference figures, a function that predicts them, and how well it did."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

Row = Mapping[str, str]


@dataclass(frozen=True)
class Comparison:
    """A predicted figure beside the recorded one.

    `resolution` is what the record can tell apart: 0 for counts, half a unit of the last digit for rounded figures.
    `bound` is the relative error that is demanded; None: shown for information.
    """

    quantity: str
    predicted: float
    recorded: float
    resolution: float = 0.0
    bound: float | None = None

    @property
    def within(self) -> bool:
        """Whether the error keeps its bound; True without one."""
        return self.bound is None or self.relative_error <= self.bound

    @property
    def exact(self) -> bool:
        """Whether the record cannot tell the two apart."""
        return abs(self.predicted - self.recorded) <= self.resolution

    @property
    def relative_error(self) -> float:
        """|predicted - recorded| over |recorded|; 0 when exact, infinite against a recorded zero."""
        if self.exact:
            return 0.0
        difference = abs(self.predicted - self.recorded)
        return difference / abs(self.recorded) if self.recorded else math.inf


@dataclass(frozen=True)
class Suite:
    """Reference rows and how to predict them.

    `run` gives the comparisons of a row, `label` how a row is called in a report. `notes` say what is left out and
    what the figures stand on.
    """

    name: str
    source: str
    rows: Sequence[Row]
    run: Callable[[Row], Sequence[Comparison]]
    label: Callable[[Row], str]
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class SuiteResult:
    """How a suite went.

    `count` rows, of which `exact` have every figure exact; `mape` in percent over all figures; `worst` names the
    row and figure that is furthest off, empty when all are exact. `comparisons` are all figures, each with the label
    of its row.
    """

    name: str
    source: str
    count: int
    exact: int
    mape: float
    worst: str
    comparisons: tuple[tuple[str, Comparison], ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def max_error(self) -> float:
        """Largest relative error of all figures; 0 without any."""
        return max((comparison.relative_error for _, comparison in self.comparisons), default=0.0)

    @property
    def beyond(self) -> int:
        """Figures that do not keep their bound."""
        return sum(not comparison.within for _, comparison in self.comparisons)

    @property
    def all_exact(self) -> bool:
        """Whether there were rows and every one was exact."""
        return self.count > 0 and self.exact == self.count


def run_suite(suite: Suite) -> SuiteResult:
    """Predict every row and compare."""
    exact, errors = 0, []
    every: list[tuple[str, Comparison]] = []
    worst_error, worst = 0.0, ""
    for row in suite.rows:
        comparisons = suite.run(row)
        every += [(suite.label(row), comparison) for comparison in comparisons]
        exact += all(comparison.exact for comparison in comparisons)
        for comparison in comparisons:
            error = comparison.relative_error
            errors.append(error)
            if error > worst_error:
                worst_error = error
                worst = (
                    f"{suite.label(row)}: {comparison.quantity} {comparison.predicted:.9g}, "
                    f"recorded {comparison.recorded:.9g}"
                )
    mape = 100 * math.fsum(errors) / len(errors) if errors else 0.0
    return SuiteResult(suite.name, suite.source, len(suite.rows), exact, mape, worst, tuple(every), tuple(suite.notes))
