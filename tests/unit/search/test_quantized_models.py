"""A model that comes quantized is searched with the integers it has."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from dse.backend import Numerics
from dse.compiler import calibration_images, is_quantized, prepare, quantize, with_float_boundary
from dse.core.errors import InfeasibleError
from dse.ir import Graph
from dse.search.networks import ACCURACY_CEILING, QuantizedNetworks
from workloads.onnx import export_quantized, read_model
from workloads.zoo import ZooFrontend


@pytest.fixture(scope="module")
def graphs(tmp_path_factory: pytest.TempPathFactory) -> tuple[Graph, Graph]:
    """The MLP of the zoo in float, and as read back from the int8 file that `dse quantize` would write."""
    graph = prepare(ZooFrontend().load("mlp", Path("."), {}))
    integers = quantize(graph, calibration_images(graph, 16, 0))
    path = tmp_path_factory.mktemp("model") / "mlp.int8.onnx"
    path.write_bytes(export_quantized(with_float_boundary(integers, graph)).SerializeToString())
    return integers, prepare(read_model(path))


def test_its_integers_are_kept_and_judged_against_their_own_meaning(graphs: tuple[Graph, Graph]) -> None:
    written, read = graphs
    assert is_quantized(read)
    network = QuantizedNetworks(read, 8, 0).get(Numerics(8, 8, "ort"))
    assert network.graph is read
    assert dict(network.accuracy) == {"sqnr_db": ACCURACY_CEILING, "top1_agreement": 1.0}
    held, wanted = (
        {item.data.tobytes() for item in graph.constants() if item.data is not None and item.dtype == "int8"}
        for graph in (read, written)
    )
    assert held == wanted
    cheap = QuantizedNetworks(read, 8, 0).get(Numerics(8, 8, "q31"))
    assert 30 < cheap.accuracy["sqnr_db"] <= ACCURACY_CEILING
    assert np.isclose(cheap.accuracy["top1_agreement"], 1.0, atol=0.2)


def test_designs_with_narrower_weights_are_infeasible(graphs: tuple[Graph, Graph]) -> None:
    with pytest.raises(InfeasibleError, match="8 bits against a bound of 4 bits") as error:
        QuantizedNetworks(graphs[1], 8, 0).get(Numerics(4, 8, "ort"))
    assert error.value.violations[0].excess == pytest.approx(1.0)


def test_a_float_network_is_not_taken_for_a_quantized_one() -> None:
    assert not is_quantized(prepare(ZooFrontend().load("mlp", Path("."), {})))
