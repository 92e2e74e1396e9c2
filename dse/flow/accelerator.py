"""From what a user wrote (`gemmini_16x16`, `my_design.yaml`, `hardware.rows=4`) to one validated design."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel

from dse.backend import Accelerator, Decisions
from dse.config.loader import apply_override, load_mapping
from dse.config.marked_yaml import KeyPath, Mark
from dse.config.models import AcceleratorConfig, DesignConfig, TechConfig
from dse.config.validation import at, validate, validate_hardware
from dse.core import registry
from dse.core.errors import ConfigError, InfeasibleError, UsageError, nearest
from dse.flow.technology import with_technology


class Design(NamedTuple):
    """A family, the parameters of one of its designs, and the compiler decisions to use with it."""

    family: Accelerator
    hw: BaseModel
    decisions: Decisions

    def require_buildable(self) -> None:
        """Raise InfeasibleError when the design breaks a limit of its family."""
        violations = self.family.check(self.hw)
        if violations:
            raise InfeasibleError(f"this {self.family.name} design cannot be built", violations)


def resolve_accelerator(spec: str, overrides: Sequence[str] = ()) -> Design:
    """Find a design.

    Parameters
    ----------
    spec
        Name of a preset, name of a family (its default design), or a YAML file: a design
        (`family`, `hardware`, ...) or a run configuration, whose `accelerator` section is taken.
    overrides
        `hardware.NAME=VALUE` or `decisions.NAME=VALUE`; `NAME=VALUE` where the family has a decision of that name.

    Raises
    ------
    UsageError, ConfigError: nothing of that name, or a parameter is wrong.
    """
    data: dict[str, Any]
    marks: dict[KeyPath, Mark]
    if Path(spec).suffix.lower() in (".yaml", ".yml"):
        data, marks = _design_file(Path(spec))
    elif spec in registry.names(registry.BACKENDS):
        data, marks = {"family": spec}, {}
    else:
        found = presets()
        if spec not in found:
            known = [*found, *registry.names(registry.BACKENDS)]
            raise UsageError(
                f"{spec!r} is neither a preset nor a family of accelerators nor a .yaml file{nearest(spec, known)}"
            )
        data, marks = {"family": found[spec], "preset": spec}, {}
    for override in overrides:
        apply_override(data, marks, _scoped(override, data.get("family")))
    return design_of(validate(DesignConfig, data, marks), marks, ())


def _scoped(override: str, family: Any) -> str:
    """An override with its section in front.

    Raises
    ------
    UsageError: it has none, and the family has no decision of that name.
    """
    name = override.partition("=")[0]
    if name.partition(".")[0] in ("hardware", "decisions"):
        return override
    if family in registry.names(registry.BACKENDS):
        loaded: Accelerator = registry.load(registry.BACKENDS, family)
        if name in loaded.decision_defaults():
            return f"decisions.{override}"
    raise UsageError(f"{override!r} must be hardware.NAME=VALUE or decisions.NAME=VALUE")


def design_of(config: AcceleratorConfig, marks: Mapping[KeyPath, Mark], prefix: KeyPath = ("accelerator",)) -> Design:
    """The design that an accelerator configuration describes: preset first, its own parameters on top.

    Parameters
    ----------
    marks, prefix
        Where values were written, and the path of `config` in them, for messages.

    Raises
    ------
    ConfigError: family, preset, a parameter or a decision is wrong.
    """
    known = registry.names(registry.BACKENDS)
    if config.family not in known:
        raise at(
            (*prefix, "family"), marks, f"{config.family!r} is not an accelerator family{nearest(config.family, known)}"
        )
    family: Accelerator = registry.load(registry.BACKENDS, config.family)
    parameters: dict[str, Any] = {}
    if config.preset is not None:
        shipped = family.presets()
        if config.preset not in shipped:
            message = f"{config.preset!r} is not a preset of {family.name}{nearest(config.preset, shipped)}"
            raise at((*prefix, "preset"), marks, message)
        parameters.update(shipped[config.preset])
    parameters.update(config.hardware)
    hw = validate_hardware(family.hardware_model, parameters, marks, (*prefix, "hardware"))
    return Design(family, hw, _decisions(family, config.decisions, marks, (*prefix, "decisions")))


def presets() -> dict[str, str]:
    """Preset names of all families, each with its family's name; a family that cannot be loaded has none."""
    found: dict[str, str] = {}
    for name in registry.names(registry.BACKENDS):
        try:
            family: Accelerator = registry.load(registry.BACKENDS, name)
        except UsageError:
            continue  # `dse list accelerators` names it with its reason
        for preset in family.presets():
            found.setdefault(preset, name)
    return dict(sorted(found.items()))


def _decisions(
    family: Accelerator, values: Mapping[str, Any], marks: Mapping[KeyPath, Mark], prefix: KeyPath
) -> Decisions:
    defaults = family.decision_defaults()
    choices = {knob.name: knob.choices for knob in family.space()}
    for name, value in values.items():
        if name not in defaults:
            raise at((*prefix, name), marks, f"is not a decision of {family.name}{nearest(name, defaults)}")
        allowed = choices.get(f"decisions.{name}")
        # 1 == True in Python, but not in a configuration
        if allowed is not None and not any(value == item and type(value) is type(item) for item in allowed):
            shown = ", ".join(str(item).lower() if isinstance(item, bool) else str(item) for item in allowed)
            raise at((*prefix, name), marks, f"{value!r} is not one of its values ({shown})")
    return Decisions({**defaults, **values})


def _design_file(path: Path) -> tuple[dict[str, Any], dict[KeyPath, Mark]]:
    """A design file, or the `accelerator` section of a run configuration."""
    data, marks, _ = load_mapping(path)
    section = data.get("accelerator")
    if "family" in data or section is None:
        return data, marks
    if not isinstance(section, dict):
        raise ConfigError("must hold key: value lines", file=str(path), key="accelerator")
    inner = {key[1:]: mark for key, mark in marks.items() if key[:1] == ("accelerator",)}
    if "tech" in data:
        config = validate(DesignConfig, section, inner)
        tech = validate(TechConfig, data["tech"], marks, ("tech",))
        section = {**section, "hardware": with_technology(config, tech, marks).hardware}
    return section, inner
