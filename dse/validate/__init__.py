"""Reference suites and their runner: how far our models and the peers' formulas are from recorded figures."""

from dse.validate.scalesim import scalesim_suite
from dse.validate.suite import Comparison, Suite, SuiteResult, run_suite
from dse.validate.suites import available_suites, shipped_suites

__all__ = ["Comparison", "Suite", "SuiteResult", "available_suites", "run_suite", "scalesim_suite", "shipped_suites"]
