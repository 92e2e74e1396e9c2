"""Metrics of a design on a network: versioned, in parts that sum up; Pareto sets and hypervolume."""

from dse.metrics.metrics import METRICS_VERSION, LayerMetrics, Metrics, Traffic
from dse.metrics.pareto import hypervolume, pareto_front

__all__ = ["METRICS_VERSION", "LayerMetrics", "Metrics", "Traffic", "hypervolume", "pareto_front"]
