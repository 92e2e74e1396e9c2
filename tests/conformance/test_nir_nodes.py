"""Every NIR node type, written by the nir package and read by us, against its equation stepped by hand."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import nir
import numpy as np
import pytest

from accelerators.neuromorphic.build import Precision, build_network
from accelerators.neuromorphic.simulate import compile_network, potentials_of, run_network
from dse.core.errors import ModelError
from dse.ir.spiking import run_spiking
from workloads.nir import NirOptions, read_nir
from workloads.nir.structure import SUPPORTED

DT = 1e-3
STEPS = 40
OPTIONS = NirOptions(dt=DT)
Array = np.ndarray


def saved(path: Path, nodes: dict[str, Any], edges: list[tuple[str, str]]) -> Path:
    nir.write(path / "net.nir", nir.NIRGraph(nodes, edges, type_check=False))
    return path / "net.nir"


def chain(path: Path, shape: tuple[int, ...], out: tuple[int, ...], *middle: Any) -> Path:
    """input -> the nodes in a row -> output."""
    names = [f"n{index}" for index in range(len(middle))]
    nodes = {"input": nir.Input(np.array(shape)), **dict(zip(names, middle, strict=True)),
             "output": nir.Output(np.array(out))}  # fmt: skip
    order = ["input", *names, "output"]
    return saved(path, nodes, list(itertools.pairwise(order)))


def outputs(path: Path, drive: Array, options: NirOptions = OPTIONS) -> Array:
    graph = read_nir(path, options)
    return run_spiking(graph, {graph.inputs[0]: drive[:, None]})[graph.outputs[0]][:, 0]


def drive_of(*shape: int, seed: int = 0) -> Array:
    return (np.random.default_rng(seed).random((STEPS, *shape)) < 0.4).astype(float)


V = np.array([0.9, 1.0, 1.3])
TAU = np.array([0.004, 0.01, 0.02])
R = np.array([1.0, 2.0, 5.0])


def stepped(kind: str, drive: Array, options: NirOptions = OPTIONS) -> Array:
    """A neuron's equation with explicit Euler, written out for each type."""
    v, i, found = np.zeros(3), np.zeros(3), []
    for x in drive:
        if kind in ("CubaLI", "CubaLIF"):
            i = i + DT / 0.005 * (-i + 3.0 * x)
            v = v + DT / TAU * (0.1 - v + R * i)
        elif kind in ("LI", "LIF"):
            v = v + DT / TAU * (0.1 - v + R * x)
        elif kind == "Threshold":
            v = x.copy()
        else:
            v = v + R * x * (DT if options.integrators == "currents" else 1.0)
        if kind in ("I", "LI", "CubaLI"):
            found.append(v.copy())
            continue
        threshold = np.array([0.5, 0.5, 2.0]) if kind == "Threshold" else V
        fired = v > threshold
        found.append(fired.astype(float))
        if kind != "Threshold":
            v = np.where(fired, v - V if options.reset == "subtract" else 0.05, v)
    return np.array(found)


def neuron(kind: str) -> Any:
    reset, leak, syn = np.full(3, 0.05), np.full(3, 0.1), np.full(3, 0.005)
    return {
        "I": lambda: nir.I(R),
        "LI": lambda: nir.LI(TAU, R, leak),
        "IF": lambda: nir.IF(R, V, reset),
        "LIF": lambda: nir.LIF(TAU, R, leak, V, reset),
        "CubaLI": lambda: nir.CubaLI(syn, TAU, R, leak, np.full(3, 3.0)),
        "CubaLIF": lambda: nir.CubaLIF(syn, TAU, R, leak, V, reset, np.full(3, 3.0)),
        "Threshold": lambda: nir.Threshold(np.array([0.5, 0.5, 2.0])),
    }[kind]()


@pytest.mark.parametrize("reset", ["value", "subtract"])
@pytest.mark.parametrize("kind", ["I", "LI", "IF", "LIF", "CubaLI", "CubaLIF", "Threshold"])
def test_neurons_follow_their_equation(tmp_path: Path, kind: str, reset: str) -> None:
    options = NirOptions(dt=DT, reset=reset)
    found = outputs(chain(tmp_path, (3,), (3,), neuron(kind)), drive_of(3), options)
    np.testing.assert_allclose(found, stepped(kind, drive_of(3), options), atol=1e-5)
    assert found.any()


@pytest.mark.parametrize("kind", ["I", "LI", "IF", "LIF", "CubaLI", "CubaLIF", "Threshold"])
def test_cores_compute_neurons_as_their_equation(tmp_path: Path, kind: str) -> None:
    graph = read_nir(chain(tmp_path, (3,), (3,), nir.Linear(np.eye(3)), neuron(kind)), OPTIONS)
    network = build_network(graph, Precision(weight_bits=16, state_bits=32, fraction_bits=8))
    activity = run_network(compile_network(network), {graph.inputs[0]: drive_of(3).astype(int)})
    wanted = stepped(kind, drive_of(3))
    population = network.populations[0]
    if population.spiking:
        np.testing.assert_array_equal(activity.raster(0, 3)[:STEPS], wanted)
    else:
        rest = 0.1 if kind == "CubaLI" else 0.0  # stored as the distance from its rest
        found = potentials_of(network, activity, graph.outputs[0])[:STEPS] + rest
        np.testing.assert_allclose(found, wanted, rtol=0.02, atol=0.03)


def test_integrators_take_currents_when_told(tmp_path: Path) -> None:
    options = NirOptions(dt=DT, integrators="currents")
    found = outputs(chain(tmp_path, (3,), (3,), nir.I(R)), drive_of(3), options)
    np.testing.assert_allclose(found, stepped("I", drive_of(3), options), atol=1e-6)


def test_exponential_integration_decays_exactly(tmp_path: Path) -> None:
    drive = np.zeros((STEPS, 1))
    drive[0] = 1.0
    node = nir.LI(np.array([0.01]), np.array([1.0]), np.array([0.0]))
    found = outputs(chain(tmp_path, (1,), (1,), node), drive, NirOptions(dt=DT, integration="exponential"))
    expected = (1 - np.exp(-DT / 0.01)) * np.exp(-DT / 0.01 * np.arange(STEPS))
    np.testing.assert_allclose(found[:, 0], expected, rtol=1e-5)


def integrated(path: Path, shape: tuple[int, ...], out: tuple[int, ...], *middle: Any) -> tuple[Array, Array]:
    """Potentials of integrators behind linear nodes, as graph and on cores, and the input."""
    drive = drive_of(*shape, seed=3)
    graph = read_nir(chain(path, shape, out, *middle, nir.I(np.ones(out))), OPTIONS)
    real = run_spiking(graph, {graph.inputs[0]: drive[:, None]})[graph.outputs[0]][:, 0]
    network = build_network(graph, Precision(weight_bits=16, state_bits=32, fraction_bits=0, clip=False))
    activity = run_network(compile_network(network), {graph.inputs[0]: drive.astype(int)}, STEPS)
    found = potentials_of(network, activity, graph.outputs[0])
    np.testing.assert_allclose(found, real, atol=0.02 * STEPS)
    return np.diff(real, axis=0, prepend=0), drive


def test_affine_linear_scale_and_flatten(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    weight, bias, scale = rng.normal(size=(4, 12)), rng.normal(size=4), rng.normal(size=4)
    flat = nir.Flatten({"input": np.array([3, 2, 2])}, 0, -1)
    found, drive = integrated(tmp_path, (3, 2, 2), (4,), flat, nir.Affine(weight, bias), nir.Scale(scale))
    np.testing.assert_allclose(found, (drive.reshape(STEPS, -1) @ weight.T + bias) * scale, atol=1e-4)
    found, drive = integrated(tmp_path, (12,), (4,), nir.Linear(weight))
    np.testing.assert_allclose(found, drive @ weight.T, atol=1e-4)


@pytest.mark.parametrize("padding", [1, "same", "valid"])
def test_conv2d(tmp_path: Path, padding: Any) -> None:
    rng = np.random.default_rng(6)
    weight, bias = rng.normal(size=(4, 2, 3, 3)), rng.normal(size=4)
    node = nir.Conv2d((6, 5), weight, 1, padding, 1, 1, bias)
    around = 0 if padding == "valid" else 1
    rows, columns = 6 + 2 * around - 2, 5 + 2 * around - 2
    found, drive = integrated(tmp_path, (2, 6, 5), (4, rows, columns), node)
    padded = np.pad(drive, ((0, 0), (0, 0), (around, around), (around, around)))
    for y in range(rows):
        for x in range(columns):
            expected = np.einsum("tcrs,mcrs->tm", padded[:, :, y : y + 3, x : x + 3], weight) + bias
            np.testing.assert_allclose(found[:, :, y, x], expected, atol=1e-4)


def test_conv1d_with_stride_and_groups(tmp_path: Path) -> None:
    rng = np.random.default_rng(7)
    weight, bias = rng.normal(size=(4, 1, 3)), rng.normal(size=4)
    found, drive = integrated(tmp_path, (2, 9), (4, 4), nir.Conv1d(9, weight, 2, 0, 1, 2, bias))
    for m in range(4):
        for x in range(4):
            expected = drive[:, m // 2, 2 * x : 2 * x + 3] @ weight[m, 0] + bias[m]
            np.testing.assert_allclose(found[:, m, x], expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["SumPool2d", "AvgPool2d"])
def test_pools(tmp_path: Path, kind: str) -> None:
    node = getattr(nir, kind)(np.array([2, 2]), np.array([2, 2]), np.array([0, 0]))
    found, drive = integrated(tmp_path, (3, 4, 6), (3, 2, 3), node)
    blocks = drive.reshape(STEPS, 3, 2, 2, 3, 2).sum(axis=(3, 5))
    np.testing.assert_allclose(found, blocks / (4 if kind == "AvgPool2d" else 1), atol=1e-5)


def test_delays_per_element(tmp_path: Path) -> None:
    steps = np.array([0, 2, 5])
    found, drive = integrated(tmp_path, (3,), (3,), nir.Delay(steps * DT))
    for element, late in enumerate(steps):
        np.testing.assert_array_equal(found[late:, element], drive[: STEPS - late, element])
        assert not found[:late, element].any()


def test_a_recurrent_edge_arrives_one_step_later(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    forward, back = rng.normal(size=(3, 3)), rng.normal(size=(3, 3))
    nodes = {"input": nir.Input(np.array([3])), "w": nir.Linear(forward), "r": nir.Linear(back),
             "n": nir.IF(np.ones(3), np.ones(3)), "output": nir.Output(np.array([3]))}  # fmt: skip
    edges = [("input", "w"), ("w", "n"), ("n", "r"), ("r", "n"), ("n", "output")]
    path, drive = saved(tmp_path, nodes, edges), drive_of(3)
    v, last = np.zeros(3), np.zeros(3)
    for x, found in zip(drive, outputs(path, drive), strict=True):
        v = v + forward @ x + back @ last
        last = (v > 1).astype(float)
        v = np.where(last > 0, 0.0, v)
        np.testing.assert_array_equal(found, last)


def test_nested_graphs_are_taken_apart(tmp_path: Path) -> None:
    weight = np.random.default_rng(9).normal(size=(3, 3))
    inner = nir.NIRGraph(
        {"input": nir.Input(np.array([3])), "n": nir.IF(np.ones(3), np.ones(3)), "output": nir.Output(np.array([3]))},
        [("input", "n"), ("n", "output")], type_check=False,
    )  # fmt: skip
    nodes = {"input": nir.Input(np.array([3])), "w": nir.Linear(weight), "cell": inner,
             "output": nir.Output(np.array([3]))}  # fmt: skip
    nested = saved(tmp_path, nodes, [("input", "w"), ("w", "cell"), ("cell", "output")])
    drive = drive_of(3)
    found = outputs(nested, drive)
    flat = chain(tmp_path, (3,), (3,), nir.Linear(weight), nir.IF(np.ones(3), np.ones(3)))
    np.testing.assert_array_equal(found, outputs(flat, drive))
    assert found.any()


def test_every_node_type_of_nir_is_read() -> None:
    exported = {name for name in nir.ir.__all__ if name[0].isupper()} - {"NIRGraph", "NIRNode"}
    assert exported == set(SUPPORTED)


def test_euler_steps_longer_than_a_time_constant_are_refused(tmp_path: Path) -> None:
    path = chain(tmp_path, (3,), (3,), neuron("LIF"))
    with pytest.raises(ModelError, match=r"'n0' \(LIF\) has tau 0.004 s, shorter than a step of 0.005 s"):
        read_nir(path, NirOptions(dt=5e-3))
