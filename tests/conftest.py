"""What all tests share: where reference data lies, and what a skip means in continuous integration."""

from __future__ import annotations

import os
from collections.abc import Generator
from typing import Any

import pytest

#: Set by `.ci/run`: there a missing tool is a failure, not a reason to skip.
REQUIRE_TOOLS = "DSE_REQUIRE_TOOLS"
#: Reference data lies beside the checkout and not in it, so its absence may skip a test everywhere.
REFERENCE_WORD = "shared"
#: Wheels with trained networks, some of which depend on frameworks that we do not: `.ci/run` fetches them if it can.
TRAINED_WORD = "optional trained network"


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item, call: pytest.CallInfo[None]) -> Generator[None, Any, None]:
    """Turn a skip into a failure where every tool must be there."""
    outcome = yield
    report = outcome.get_result()
    if not (report.skipped and os.environ.get(REQUIRE_TOOLS) == "1") or hasattr(report, "wasxfail"):
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if REFERENCE_WORD not in reason and TRAINED_WORD not in reason:
        report.outcome = "failed"
        report.longrepr = f"{item.nodeid}: {reason}; {REQUIRE_TOOLS}=1 allows no skip but for absent data"


@pytest.hookimpl(hookwrapper=True)
def pytest_make_collect_report(collector: pytest.Collector) -> Generator[None, Any, None]:
    """The same for a module that skips itself as a whole."""
    outcome = yield
    report = outcome.get_result()
    if report.outcome != "skipped" or os.environ.get(REQUIRE_TOOLS) != "1":
        return
    reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
    if REFERENCE_WORD not in reason:
        report.outcome = "failed"
        report.longrepr = f"{collector.nodeid}: {reason}; {REQUIRE_TOOLS}=1 allows no skipped module"
