"""The einsum front end: what it reads, what it recognises, that values and loop nests follow, and what it refuses."""

from __future__ import annotations

import itertools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dse.core.errors import ModelError
from dse.flow.workload import load_workload
from dse.ir import Graph, loop_nest
from dse.ir.reference import run_float, run_op_float
from dse.mapping.problem import problem_of
from workloads.einsum import parse_statement, read_model
from workloads.einsum.statement import Statement

Array = npt.NDArray[Any]


def write(folder: Path, text: str, name: str = "kernel.einsum.yaml") -> Path:
    path = folder / name
    path.write_text(text)
    return path


def build(folder: Path, dims: Mapping[str, int], *statements: str, weights: str = "") -> Graph:
    extents = ", ".join(f"{name}: {size}" for name, size in dims.items())
    lines = "\n".join(f"  - {line!r}" for line in statements)
    return read_model(write(folder, f"dims: {{{extents}}}\nstatements:\n{lines}\nweights: [{weights}]\n"))


def slow(statement: Statement, bounds: Mapping[str, int], tensors: Mapping[str, Array]) -> Array:
    """One loop for each dim, in Python."""
    result = np.zeros([bounds[dim] for dim in statement.output])
    for point in itertools.product(*(range(bounds[dim]) for dim in statement.dims)):
        at = dict(zip(statement.dims, point, strict=True))
        product = 1.0
        for factor in statement.factors:
            index = tuple(offset + sum(c * at[dim] for dim, c in pairs) for pairs, offset in factor.axes)
            product *= tensors[factor.tensor][index]
        result[tuple(at[dim] for dim in statement.output)] += product
    return result


def check_against_loops(graph: Graph, dims: Mapping[str, int], texts: tuple[str, ...], folder: Path) -> None:
    """The Graph's outputs equal the statements run one after the other as loops, weights in the file's order."""
    rng = np.random.default_rng(0)
    plain = build(folder, dims, *texts)  # no weights: every tensor is an input, every statement an einsum
    assert {op.kind for op in plain.ops} == {"einsum"}
    tensors: dict[str, Array] = {
        name: rng.standard_normal(plain[name].shape).astype(np.float32) for name in plain.inputs
    }
    for name in plain.inputs:
        if name not in graph.inputs:
            tensors[name] = np.asarray(drawn(graph, name, plain[name].shape))
    feed = {name: tensors[name].reshape(graph[name].shape) for name in graph.inputs}
    got, got_plain = run_float(graph, feed), run_float(plain, {name: tensors[name] for name in plain.inputs})
    for text in texts:
        statement = parse_statement(text, "test")
        tensors[statement.tensor] = slow(statement, dims, tensors)
    for name in graph.outputs:
        for values in (got[name], got_plain[name]):
            np.testing.assert_allclose(values.reshape(tensors[name].shape), tensors[name], rtol=2e-4, atol=2e-4)


def drawn(graph: Graph, name: str, shape: tuple[int, ...]) -> Array:
    """The He-normal values of the only weight `name`, drawn as the front end documents it."""
    (weight,) = graph.constants()
    data = np.random.default_rng([0, 0]).standard_normal(shape, np.float32)
    assert weight.data is not None
    ratio = np.sort(np.abs(weight.data).ravel())[-1] / np.sort(np.abs(data).ravel())[-1]
    return data * ratio


CONV = {"k": 5, "c": 3, "p": 4, "q": 6, "r": 3, "s": 2, "n": 2}


@pytest.mark.parametrize(
    ("text", "kind", "expected"),
    [
        ("O[k,p,q] += I[c,p+r,q+s] * W[k,c,r,s]", "conv", {"strides": (1, 1), "groups": 1}),
        ("O[n,k,p,q] += W[c,s,k,r] * I[n,c,2*p+r,q*3+2*s]", "conv", {"strides": (2, 3), "dilations": (1, 2)}),
        ("O[c,p,q] += I[c,p+r,q+s] * W[r,c,s]", "conv", {"groups": 3}),
        ("O[k,p,q] += I[c,p,q] * W[c,k]", "conv", {"strides": (1, 1)}),
        ("O[k,p,q] += I[c,p+r,q] * W[k,c,r]", "conv", {"dilations": (1, 1)}),
        ("O[n,k] += I[n,c] * W[k,c]", "gemm", {}),
        ("O[n,k] += I[n,c] * W[c,k]", "gemm", {}),
        ("O[k] += I[c] * W[c,k]", "gemm", {}),
        ("O[k,n] += I[n,c] * W[c,k]", "einsum", {}),
        ("O[k,p,q] += I[p+r,q+s,c] * W[k,c,r,s]", "einsum", {}),
        ("O[k,p] += I[c,p+r] * W[k,c,r]", "einsum", {}),
        ("O[k,p,q] += I[c,p+r+1,q+s] * W[k,c,r,s]", "einsum", {}),
        ("O[p,q] += I[c,p,q] * W[k,c]", "einsum", {}),
        ("O[k,p,q] += I[c,p+p+r,q+s] * W[k,c,r,s]", "conv", {"strides": (2, 1)}),
        ("O[k,c] = I[k,c] * W[k,c]", "einsum", {}),
        ("O[p] += I[5-p+r] * W[r]", "einsum", {}),
    ],
)
def test_layers_are_recognised_and_compute_the_loops(
    text: str, kind: str, expected: dict[str, Any], tmp_path: Path
) -> None:
    """Recognised or not, the values are those of the statement's loops."""
    dims = {name: CONV[name] for name in CONV}
    graph = build(tmp_path, dims, text, weights="W")
    layers = [op for op in graph.ops if op.kind != "reshape"]
    assert [op.kind for op in layers] == [kind]
    for name, value in expected.items():
        assert layers[0].attributes[name] == value
    check_against_loops(graph, dims, (text,), tmp_path)


def test_several_statements_chain(tmp_path: Path) -> None:
    """Convolution, pointwise gate and a product of activations; only what an einsum reads loses its batch axis."""
    texts = (
        "A[k,p,q] += I[c,p+r,q+s] * W[k,c,r,s]",
        "S[p,t] += A[k,p,q] * A[k,t,q]",
        "O[p,u] += S[p,t] * S[t,u]",
    )
    dims = {**CONV, "t": 4, "u": 4}
    graph = build(tmp_path, dims, *texts, weights="W")
    assert [op.kind for op in graph.ops] == ["conv", "reshape", "einsum", "einsum"]
    check_against_loops(graph, dims, texts, tmp_path)


def test_recognised_layers_meet_without_reshapes(tmp_path: Path) -> None:
    dims = {"k": 4, "c": 3, "p": 5, "q": 5, "r": 3, "s": 3, "m": 6, "x": 5, "y": 5}
    texts = ("A[k,x,y] += I[c,x+r,y+s] * V[k,c,r,s]", "O[m,p,q] += A[k,p,q] * W[m,k]")
    graph = build(tmp_path, dims, *texts, weights="V, W")
    assert [op.kind for op in graph.ops] == ["conv", "conv"]
    assert graph[graph.inputs[0]].shape == (1, 3, 7, 7)
    assert graph[graph.outputs[0]].shape == (1, 6, 5, 5)
    assert graph.macs == 4 * 3 * 25 * 9 + 6 * 4 * 25


@st.composite
def statements(draw: st.DrawFn) -> tuple[str, dict[str, int]]:
    """A random sum of products whose indices are not below 0."""
    names = "abcdef"[: draw(st.integers(2, 6))]
    bounds = {name: draw(st.integers(1, 3)) for name in names}
    factors, used = [], []
    for number in range(draw(st.integers(1, 3))):
        axes = []
        for _ in range(draw(st.integers(1, 3))):
            terms = draw(st.lists(st.sampled_from(names), min_size=1, max_size=2))
            used += terms
            coefficients = [draw(st.integers(1, 3)) for _ in terms]
            axes.append("+".join(f"{c}*{name}" for c, name in zip(coefficients, terms, strict=True)))
        factors.append(f"T{number}[{','.join(axes)}]")
    output = draw(st.lists(st.sampled_from(sorted(set(used))), min_size=1, max_size=3, unique=True))
    return f"O[{','.join(output)}] += {' * '.join(factors)}", bounds


@given(statements())
@settings(max_examples=60, deadline=None, derandomize=True)
def test_einsums_of_random_form_equal_their_loops(tmp_path_factory: pytest.TempPathFactory, case: Any) -> None:
    text, bounds = case
    folder = tmp_path_factory.mktemp("random")
    graph = build(folder, bounds, text)
    check_against_loops(graph, bounds, (text,), folder)
    (op,) = graph.ops
    nest = loop_nest(graph, op)
    statement = parse_statement(text, "test")
    assert nest.macs == math.prod(bounds[dim] for dim in statement.dims) == graph.macs
    assert nest.reduction == set(statement.dims) - set(statement.output)
    for access in nest.accesses:
        for axis, (coefficients, offset) in enumerate(zip(access.axes, access.offsets, strict=True)):
            last = offset + sum(c * (bounds[dim] - 1) for dim, c in coefficients.items())
            assert last == graph[access.tensor].shape[axis] - 1


def test_the_loop_nest_is_a_problem_that_can_be_mapped(tmp_path: Path) -> None:
    """Matricised tensor times Khatri-Rao product: three factors, each tensor's words counted by the mapping room."""
    dims = {"i": 6, "j": 5, "k": 4, "r": 3}
    graph = build(tmp_path, dims, "M[i,r] += X[i,j,k] * B[j,r] * C[k,r]", weights="B")
    problem = problem_of(loop_nest(graph, graph.ops[0]))
    assert problem.macs == 6 * 5 * 4 * 3
    words = {tensor.name: (tensor.words(problem.bounds), tensor.role) for tensor in problem.tensors}
    assert words == {"X": (120, "input"), "C": (12, "input"), "B": (15, "weight"), "M": (18, "output")}


def test_dims_can_be_bound_and_weights_are_seeded(tmp_path: Path) -> None:
    text = "dims: {n: 2, k: 3, c: 400}\nstatements: ['O[n,k] += I[n,c] * W[k,c]']\nweights: [W]\nseed: 7\n"
    write(tmp_path, text)
    graph = load_workload("kernel.einsum.yaml", tmp_path, {"n": 9})
    assert graph[graph.inputs[0]].shape == (9, 400)
    again = load_workload("kernel.einsum.yaml", tmp_path)
    first, second = (next(item.constants()).data for item in (graph, again))
    assert first is not None
    assert second is not None
    np.testing.assert_array_equal(first, second)
    assert first.std() == pytest.approx(math.sqrt(2 / 400), rel=0.05)


def test_an_operand_smaller_than_what_is_read_is_refused(tmp_path: Path) -> None:
    """A strided view would otherwise read outside the array."""
    graph = build(tmp_path, {"a": 4, "b": 3}, "O[a] += I[a+b]")
    with pytest.raises(ModelError, match="reads indices 0 to 5 of an axis of 5 elements"):
        run_op_float(graph, graph.ops[0], {"I": np.zeros(5, np.float32)})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("O[k] += I[c] @ W[k,c]", "column 13: '@' has no meaning here"),
        ("O[k] += I[c] W[k,c]", "expected '*' or the end, found 'W'"),
        ("O[k] I[c]", "expected '+=' or '=', found 'I'"),
        ("O[k] = I[c] * W[k,c]", "sums over c, which needs '+='"),
        ("O[k+1] += I[k]", "the output is indexed by plain dims only"),
        ("O[k,k] += I[k]", "a dim indexes two axes of the output"),
        ("O[k,c] += I[k]", "dim 'c' of the output is read by no factor"),
        ("O[k] += O[k]", "reads 'O', the tensor it writes"),
        ("O[k] += I[k-1]", "axis 0 of 'I' reaches index -1; the first is 0"),
        ("O[k] += I[k*c]", "expected a number, found 'c'"),
        ("O[k] += I[k,z]", "dim 'z' has no extent in 'dims'"),
        ("O[k] += I[99999999999999999999*k]", "is above 16777216"),
        ("O[k] += I[16777216*k,16777216*k]", "is above 2,147,483,647 elements"),
        ("O[]", "expected a number, found ']'"),
        ("", "expected a name, found 'the end'"),
        ("O[__import__('os')]", "has no meaning here"),
        ("O[k] += I[" + "k+" * 2000 + "k]", "at most 2000 are read"),
    ],
)
def test_malformed_statements_are_named(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as error:
        build(tmp_path, {"k": 3, "c": 2}, text)
    assert words in str(error.value)
    assert "\n" not in str(error.value)


DIMS = "dims: {k: 3}\n"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "must be a mapping"),
        ("dims: {k: 3}\nstatement: []", "'statement' is not a key; did you mean 'statements'?"),
        ("dims: {k: 0}\nstatements: ['O[k] += I[k]']", "dim 'k' must be an integer from 1"),
        ("dims: {k: true}\nstatements: ['O[k] += I[k]']", "dim 'k' must be an integer from 1"),
        ("dims: 3\nstatements: ['O[k] += I[k]']", "'dims' must map"),
        (DIMS + "statements: []", "must be a list of 1 to 256"),
        (DIMS + "statements: [3]", "kernel.einsum.yaml:2: a statement must be text"),
        (DIMS + "statements: ['O[k] += I[k]', 'O[k] += J[k]']", "'O' is written by two statements"),
        (DIMS + "statements: ['O[k] += P[k]', 'P[k] += I[k]']", "reads 'P', which only a later line writes"),
        (DIMS + "statements: ['P[k] += I[k]', 'O[k] += P[k+1]']", "reaches index 3; it is written up to 2"),
        (DIMS + "statements: ['O[k] += I[k] * I[k,k]']", "has 2 axes here and 1 elsewhere"),
        (DIMS + "statements: ['O[k] += I[k]']\nweights: [V]", "weight 'V' is no tensor that is only read"),
        (DIMS + "statements: ['O[k] += I[k]']\nweights: [I]", "one must be an input"),
        (DIMS + "statements: ['O[k] += I[k]']\nseed: -1", "'seed' must be an integer from 0"),
        (DIMS + "statements: !!python/object:os.system {}", "is not supported"),
        ("a: {b", "is not YAML"),
        ("a: [" * 100, "is nested deeper"),
    ],
)
def test_malformed_files_are_named(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(ModelError) as error:
        read_model(write(tmp_path, text))
    assert words in str(error.value)
    assert "kernel.einsum.yaml" in str(error.value)


def test_missing_unknown_and_oversized(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="does not exist"):
        read_model(tmp_path / "no.einsum.yaml")
    path = write(tmp_path, DIMS + "statements: ['O[k] += I[k]']\n")
    with pytest.raises(ModelError, match="has no dimension 'm' to bind"):
        read_model(path, {"m": 2})
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ModelError, match="cannot be read"):
        read_model(path)
    path.write_text("#" * 600_000)
    with pytest.raises(ModelError, match="at most 524,288 are read"):
        read_model(path)
