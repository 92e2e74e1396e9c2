"""Run configuration: YAML with line marks, includes and overrides, validated by pydantic."""

from dse.config.loader import LoadedConfig, load_config
from dse.config.marked_yaml import Mark, Marks
from dse.config.models import (
    AcceleratorConfig,
    CalibrationConfig,
    DesignConfig,
    EmitConfig,
    RangeConfig,
    RunConfig,
    SearchConfig,
    WorkloadConfig,
    schema,
)
from dse.config.shipped import find_config, shipped_configs
from dse.config.validation import validate, validate_choices, validate_hardware

__all__ = [
    "AcceleratorConfig",
    "CalibrationConfig",
    "DesignConfig",
    "EmitConfig",
    "LoadedConfig",
    "Mark",
    "Marks",
    "RangeConfig",
    "RunConfig",
    "SearchConfig",
    "WorkloadConfig",
    "find_config",
    "load_config",
    "schema",
    "shipped_configs",
    "validate",
    "validate_choices",
    "validate_hardware",
]
