"""Reports of a run: the Pareto table of the terminal, figures, and one self-contained HTML page."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from dse.report.pareto_table import pareto_table

__all__ = ["pareto_table", "write_report"]


def write_report(document: Mapping[str, Any], folder: Path, write_text: Callable[[str, str], Path]) -> Path:
    """Write `report.html` and `plots/*.png` into a run folder.

    Parameters
    ----------
    document
        What a run found, as `dse.flow.document.report_document` gathers it.
    write_text
        Writes one named file of the folder in one step.

    Returns
    -------
    The path of the page.
    """
    # matplotlib takes a quarter of a second to import: the Pareto table does without
    from dse.report.page import render_page
    from dse.report.plots import write_plots

    write_plots(document, folder / "plots")
    return write_text("report.html", render_page(document))
