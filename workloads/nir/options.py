"""What a NIR file leaves open: the length of a time step, how to integrate over it, and how neurons reset.

NIR describes neurons in continuous time and holds no time step; `v_reset` alone does not say whether a spike
subtracts the threshold. A user says so behind the file's name: `nir:net.nir?dt=1e-4&reset=subtract`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

from dse.core.errors import ModelError, nearest

CHOICES = {
    "integration": ("euler", "exponential"),
    "reset": ("value", "subtract"),
    "integrators": ("spikes", "currents"),
}


@dataclass(frozen=True)
class NirOptions:
    """How a NIR graph becomes steps.

    Parameters
    ----------
    dt
        Seconds a step; the files of the NIR paper were exported with 1e-4.
    integration
        "euler": a membrane keeps 1 - dt / tau of itself; "exponential": exp(-dt / tau).
    reset
        What a spike does to the potential: set it to `v_reset` ("value") or take the threshold off ("subtract").
    integrators
        Inputs of I and IF: "spikes" add r each (impulses), "currents" add r * dt a step.
    """

    dt: float = 1e-4
    integration: str = "euler"
    reset: str = "value"
    integrators: str = "spikes"

    def __str__(self) -> str:
        return f"dt={self.dt:g} integration={self.integration} reset={self.reset} integrators={self.integrators}"


def parse_reference(reference: str) -> tuple[str, NirOptions]:
    """`net.nir?dt=1e-4&reset=subtract` as a path and options.

    Raises
    ------
    ModelError: an option is unknown or has a value it cannot take.
    """
    path, _, query = reference.partition("?")
    options = NirOptions()
    for item in filter(None, query.split("&")):
        name, _, text = item.partition("=")
        if name not in ("dt", *CHOICES):
            raise ModelError(f"{path}: {name!r} is no option of a NIR file{nearest(name, ('dt', *CHOICES))}")
        options = replace(options, **{name: _value(path, name, text)})
    return path, options


def _value(path: str, name: str, text: str) -> Any:
    if name != "dt":
        if text not in CHOICES[name]:
            raise ModelError(f"{path}: {name}={text!r} is not possible{nearest(text, CHOICES[name])}")
        return text
    try:
        seconds = float(text)
    except ValueError:
        seconds = math.nan
    if not 1e-12 <= seconds <= 1e3:
        raise ModelError(f"{path}: dt={text!r} is not a time step; give seconds in 1e-12..1000, such as 1e-4")
    return seconds
