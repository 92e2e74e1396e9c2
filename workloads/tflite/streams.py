"""Converters of variables: the state that a streaming network carries from one step to the next.

A Graph has no memory. A variable that a step writes becomes one more input (its value before the step) and one more
output (its value after it); one that is only read is the constant it was initialised with.
"""

from __future__ import annotations

from dataclasses import replace

from dse.core.errors import ModelError
from dse.ir.graph import Tensor
from workloads.tflite.flat import RawSubgraph
from workloads.tflite.network import TO_NCHW, Array, Call, Network, Variable


def handle(call: Call) -> None:
    """VAR_HANDLE: names a variable."""
    raw = call.raw_output()
    call.network.handles[raw.index] = _name(call)


def _name(call: Call) -> str:
    container, shared = ((call.option(key) or b"").decode("utf-8", "replace") for key in ("Container", "SharedName"))
    return f"{container}/{shared}" if container else shared


def call_once(call: Call, subgraphs: tuple[RawSubgraph, ...]) -> None:
    """CALL_ONCE: runs the subgraph that gives variables their initial values; it may do nothing else."""
    index = int(call.option("InitSubgraphIndex"))
    if not 0 < index < len(subgraphs):
        call.fail(f"refers to subgraph {index}; there are {len(subgraphs)}")
    inner = Network(f"{call.network.source}: subgraph {index}", subgraphs[index])
    names: dict[int, str] = {}
    for operator in subgraphs[index].operators:
        step = Call(inner, operator)
        if operator.kind == "VAR_HANDLE":
            names[step.raw_output().index] = _name(step)
        elif operator.kind == "ASSIGN_VARIABLE":
            variable = names.get(step.raw(0).index)
            if variable is None:
                step.fail("assigns to no variable")
            raw = step.raw(1)
            values: Array = step.values(1, "an initial value")
            if values.dtype.name != "int8":
                step.fail(f"the initial value {raw.name!r} has the type {raw.dtype}, only int8 is supported here")
            data = values.transpose(TO_NCHW) if values.ndim == 4 else values
            call.network.variables[variable] = Variable(variable, data, inner.quantization_of(raw))
        else:
            step.fail("only VAR_HANDLE and ASSIGN_VARIABLE of constants are supported in an initialiser")


def _variable(call: Call) -> Variable:
    name = call.network.handles.get(call.raw(0).index)
    if name is None or name not in call.network.variables:
        call.fail(f"the variable {name or call.raw(0).name!r} has no initial value")
    return call.network.variables[name]


def read(call: Call) -> None:
    """READ_VARIABLE: the value that the variable has at this point of the step."""
    variable, raw, network = _variable(call), call.raw_output(), call.network
    if not variable.current:
        name = network.unique(variable.name or "state")
        network.tensors[name] = Tensor(name, variable.initial.shape, "int8", variable.quantization)
        variable = replace(variable, current=name, first=name)
        network.variables[variable.name] = variable
    tensor = network.tensors[variable.current]
    call.same_quantization(tensor, raw)
    shape = tuple(raw.shape[axis] for axis in TO_NCHW) if len(raw.shape) == 4 else raw.shape
    if shape != tensor.shape:
        call.fail(f"reads {variable.name!r} of shape {list(tensor.shape)} as {list(shape)} (NCHW)")
    network.names[raw.index] = variable.current


def assign(call: Call) -> None:
    """ASSIGN_VARIABLE: what later reads, and the next step, see."""
    variable, value = _variable(call), call.activation_input(1)
    if value.shape != variable.initial.shape or value.quantization != variable.quantization:
        call.fail(f"{value.name!r} does not have the shape and quantization of the variable {variable.name!r}")
    call.network.variables[variable.name] = replace(variable, current=value.name)


def close(network: Network) -> list[Variable]:
    """The variables that became inputs and outputs; the others that were read become constants."""
    states = []
    for variable in network.variables.values():
        if not variable.first:
            continue
        if variable.current == variable.first:
            tensor = network.tensors[variable.first]
            network.tensors[variable.first] = replace(tensor, data=variable.initial)
        else:
            states.append(variable)
    names = [variable.current for variable in states]
    if len(set(names)) != len(names):
        raise ModelError(f"{network.source}: two variables are assigned the same tensor, which is not supported")
    return states
