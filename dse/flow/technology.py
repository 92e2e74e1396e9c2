"""The `tech:` section of a run configuration becomes hardware parameters of the family."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from dse.backend import Accelerator
from dse.config.marked_yaml import KeyPath, Mark
from dse.config.models import AcceleratorConfig, TechConfig
from dse.config.validation import at
from dse.core import registry
from dse.core.errors import UsageError, nearest
from dse.tech import check_override, node

#: Keys of the section and the hardware parameter each becomes.
_PARAMETERS = {"node_nm": "node_nm", "device": "device", "vdd": "vdd", "overrides": "prices"}


def with_technology(
    accelerator: AcceleratorConfig, tech: TechConfig, marks: Mapping[KeyPath, Mark], prefix: KeyPath = ("tech",)
) -> AcceleratorConfig:
    """The accelerator configuration at the technology asked for.

    Parameters
    ----------
    marks, prefix
        Where values were written, and the path of `tech` in them, for messages.

    Raises
    ------
    ConfigError: an override has no such component or is not positive, the supply does not belong to the node, the
    family does not know the parameter, or the accelerator section says otherwise.
    """
    given = {key: value for key, value in tech.model_dump().items() if value not in (None, {})}
    if not given:
        return accelerator
    _check(tech, marks, prefix)
    if accelerator.family not in registry.names(registry.BACKENDS):
        return accelerator  # `design_of` names the family
    family: Accelerator = registry.load(registry.BACKENDS, accelerator.family)
    hardware: dict[str, Any] = dict(accelerator.hardware)
    for key, value in given.items():
        parameter = _PARAMETERS[key]
        if parameter not in family.hardware_model.model_fields:
            known = [name for name, field in _PARAMETERS.items() if field in family.hardware_model.model_fields]
            message = f"the {family.name} family cannot be priced by it{nearest(key, known)}"
            raise at((*prefix, key), marks, message)
        if parameter in hardware and hardware[parameter] != value:
            said = f"accelerator.hardware.{parameter} says {hardware[parameter]}"
            raise at((*prefix, key), marks, f"{value} contradicts the accelerator section: {said}; drop one of the two")
        hardware[parameter] = value
    return accelerator.model_copy(update={"hardware": hardware})


def _check(tech: TechConfig, marks: Mapping[KeyPath, Mark], prefix: KeyPath) -> None:
    for name, figure in tech.overrides.items():
        try:
            check_override(name, figure)
        except UsageError as error:
            raise at((*prefix, "overrides", name), marks, str(error)) from error
    if tech.vdd is not None and tech.node_nm is not None:
        try:
            node(tech.node_nm, tech.device or "HP").delay(tech.vdd)
        except UsageError as error:
            raise at((*prefix, "vdd"), marks, str(error).removeprefix("vdd: ")) from error
