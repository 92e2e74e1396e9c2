"""The neuromorphic core on an ECP5: 256 neurons, 64 k synapses of 4 bits, beside tinyODIN's figures for the same."""

import numpy as np
import pytest

from accelerators.neuromorphic.rtl.core import NeuroCore
from accelerators.neuromorphic.rtl.shape import image_of, shape_of
from accelerators.neuromorphic.semantics import NeuronProfile
from accelerators.neuromorphic.tables import OUTSIDE, CoreTables, pack_rows
from dse.rtl import ecp5

pytestmark = pytest.mark.skipif(ecp5.missing_tool() is not None, reason=ecp5.missing_tool() or "")
#: Yosys' count for tinyODIN with 256 neurons and 64 k synapses of 4 bits on ECP5 (repository at 1865653).
TINYODIN_LUTS = 4247


def test_the_core_takes_fewer_tables_than_tinyodin_and_runs_above_a_hundred_megahertz():
    rng = np.random.default_rng(0)
    neurons = axons = 256
    rows = [list(enumerate(rng.integers(-8, 8, neurons).tolist())) for _ in range(axons)]
    integer = np.int32
    none = np.zeros(neurons, integer)
    tables = CoreTables(
        8, "dense", (NeuronProfile(500, 0, True, 0, 3900, 1),), none, none, none, none, *pack_rows(rows, 8, "dense"),
        np.arange(neurons + 1, dtype=integer), np.full(neurons, OUTSIDE, integer), np.arange(neurons, dtype=integer),
        np.ones(neurons, integer),
    )  # fmt: skip
    shape = shape_of([tables], state_bits=12, weight_bits=4, fraction_bits=0)
    assert shape.synapse_words * shape.lanes == 64 * 1024
    report = ecp5.place_and_route(NeuroCore(shape, image_of(tables, shape)), goal_mhz=120)
    assert report.luts < TINYODIN_LUTS, report
    assert report.max_clock_mhz >= 100, report
    assert report.block_rams <= 20, report


def test_a_tool_that_fails_gives_its_last_line(tmp_path):
    with pytest.raises(ecp5.FpgaToolError, match="Yosys failed: the last line"):
        ecp5._run(["sh", "-c", "echo first; echo the last line; exit 1"], tmp_path, "Yosys")
