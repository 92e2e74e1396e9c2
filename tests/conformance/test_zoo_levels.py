"""Levels A, B and C give every network of the zoo the same cycles, task by task, on the systolic family."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from accelerators.systolic import SystolicAccelerator
from accelerators.systolic.hardware import SystolicHardware
from dse.backend import Decisions
from dse.compiler import prepare
from dse.core.errors import InfeasibleError, ModelError
from dse.flow.workload import available_models
from dse.program.executable import Executable
from dse.sim import simulate_a, simulate_b, simulate_c
from workloads.zoo import ZooFrontend

#: A Gemmini with room for the recurrent state and the widest layers, so that every kind of network fits.
ROOMY = {"parameter_channels": 16384, "state_kib": 64, "clock_mhz": 200}
NETWORKS = sorted(name.removeprefix("zoo:") for name in available_models() if name.startswith("zoo:"))
#: Networks that the family may refuse; every other one must be timed.
MAY_NOT_FIT = {"encoder_tiny"}


def compiled(network: str, preset: str, **changes: float) -> Executable:
    family = SystolicAccelerator()
    hw = SystolicHardware.model_validate({**family.presets()[preset], **changes})
    graph = prepare(ZooFrontend().load(network, Path("."), {}))
    return family.lower(graph, hw, Decisions())


def assert_levels_agree(executable: Executable) -> None:
    graph = executable.task_graph()
    a, b, c = simulate_a(graph), simulate_b(graph), simulate_c(graph)
    assert a.total_cycles == b.total_cycles == c.total_cycles == executable.estimate().cycles
    for found in (a, b):
        np.testing.assert_array_equal(found.start, c.start)
        np.testing.assert_array_equal(found.end, c.end)
    np.testing.assert_array_equal(b.service, c.service)
    assert not c.contended_cycles().any()


@pytest.mark.parametrize("network", NETWORKS)
def test_levels_agree_on_every_zoo_network(network: str) -> None:
    try:
        executable = compiled(network, "gemmini_16x16", **ROOMY)
    except (InfeasibleError, ModelError):
        assert network in MAY_NOT_FIT
        return
    assert_levels_agree(executable)


@pytest.mark.parametrize("network", ["resnet8", "squeezenet1_1", "resnet18"])
@pytest.mark.parametrize("preset", ["tpu_v1", "gemmini_16x16"])
def test_levels_agree_on_the_presets_as_shipped(network: str, preset: str) -> None:
    assert_levels_agree(compiled(network, preset))
