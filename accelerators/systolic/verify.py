"""Pieces of a compiled network that prove a design: one output tile each of the kinds of layers it runs.

Each piece is lowered by the same `lower` as a program of its own; the tile is that of the winner's own tiling
(rows x columns of pixels), one block of output channels wide, with all its reduction folds. Of a recurrent layer it is
the first time steps of all its units.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from accelerators.systolic.executable import SystolicExecutable
from accelerators.systolic.layer import Layer
from accelerators.systolic.recurrent import RecurrentLayer
from accelerators.systolic.tiling import TileGrid
from accelerators.systolic.timing_graph import RESTART_CYCLES, program_graph
from dse.backend import RtlRun, RtlUnavailable, VerificationCase
from dse.compiler.crop import Tile, Window, crop_conv, crop_gemm, crop_recurrent
from dse.core.errors import ModelError, UsageError
from dse.ir import Graph
from dse.program.tile.interpreter import run_step
from dse.program.tile.isa import Opcode
from dse.program.tile.program import TileStep
from dse.program.tile.tensors import write_tensor
from dse.sim import simulate_a

if TYPE_CHECKING:
    from dse.rtl.emit import StepVectors

Values = Mapping[str, npt.NDArray[Any]]


def _kinds() -> Mapping[str, Callable[[Layer, int], bool]]:
    """Kinds of layers a verification covers: name -> whether a layer (with its position) is of that kind."""
    return {
        "stem conv": lambda layer, index: index == 0 and layer.op.kind == "conv",
        "stride-2 conv": lambda layer, index: (
            index > 0 and layer.op.kind == "conv" and layer.strides == (2, 2) and layer.kernel != (1, 1)
        ),
        "residual-add conv": lambda layer, index: layer.add is not None,
        "fully connected": lambda layer, index: layer.op.kind == "gemm",
    }


def verification_cases(
    executable: SystolicExecutable, values: Values, lower: Callable[[Graph], SystolicExecutable]
) -> Sequence[VerificationCase]:
    """The first layer of each kind, cropped to one output tile and lowered on its own.

    Parameters
    ----------
    executable
        The winner on the whole network.
    values
        Every tensor of the reference run by name.
    lower
        Compiles a graph for the same design with the same decisions.
    """
    layers = [
        (item, layer_grid)
        for item, layer_grid in zip(executable.work, executable.grids, strict=True)
        if isinstance(item, Layer) and layer_grid is not None
    ]
    cases = []
    for kind, belongs in _kinds().items():
        for index, (layer, layer_grid) in enumerate(layers):
            if belongs(layer, index):
                tile = _crop(executable.graph, layer, layer_grid, values, executable.hw.columns)
                piece = lower(tile.graph)
                cases.append(VerificationCase(f"{kind} {layer.name}", piece, tile.inputs, tile.expected))
                break
    return cases + _recurrent_cases(executable, values, lower)


def _recurrent_cases(
    executable: SystolicExecutable, values: Values, lower: Callable[[Graph], SystolicExecutable]
) -> list[VerificationCase]:
    """The first layer of each recurrent kind, cut to a few time steps."""
    first: dict[str, RecurrentLayer] = {}
    for item in executable.work:
        if isinstance(item, RecurrentLayer):
            first.setdefault(item.op.kind, item)
    cases = []
    for kind, layer in first.items():
        outputs = [name for name in (layer.output, layer.last) if name]
        mode = executable.hw.requantize
        tile = crop_recurrent(executable.graph, layer.op, outputs, RECURRENT_STEPS, values, mode)
        cases.append(VerificationCase(f"{kind} {layer.op.name}", lower(tile.graph), tile.inputs, tile.expected))
    return cases


def _crop(graph: Graph, layer: Layer, layer_grid: TileGrid, values: Values, columns: int) -> Tile:
    if layer.op.kind == "gemm":
        return crop_gemm(graph, layer.op, values)
    y, x = layer_grid.segments["y"][0], layer_grid.segments["x"][0]
    window = Window(y.start, x.start, y.size, x.size, min(columns, layer.out_channels))
    return crop_conv(graph, layer.op, layer.add, window, values)


#: Time steps of a recurrent layer that are verified: each half of every memory is used.
RECURRENT_STEPS = 2
#: What the emitted engines execute; the rest of the instruction set has no RTL yet.
RTL_OPCODES = frozenset(
    {
        Opcode.HALT,
        Opcode.LOOP,
        Opcode.SYNC,
        Opcode.LOAD,
        Opcode.STORE,
        Opcode.MATMUL,
        Opcode.VECTOR,
        Opcode.FORWARD,
        Opcode.SCALE,
        Opcode.ELEMENT,
        Opcode.POOL,
    }
)


def rtl_gap(executable: SystolicExecutable) -> RtlUnavailable | None:
    """Why the emitted hardware cannot run a program, or None when it can."""
    used = {d.op for step in executable.program.tile_steps for queue in step.queues.values() for d in queue}
    missing = sorted(op.name for op in used - RTL_OPCODES)
    if not missing:
        return None
    return RtlUnavailable(f"the program uses {', '.join(missing)}, which the emitted vector engine does not have")


def _require_rtl(executable: SystolicExecutable) -> None:
    gap = rtl_gap(executable)
    if gap is not None:
        raise UsageError(f"{executable.graph.name}: {gap.reason}")


def _tile_steps(executable: SystolicExecutable) -> list[TileStep]:
    """The steps of a program that has no other.

    Raises
    ------
    ModelError: the program has host operations.
    """
    steps = [step for step in executable.program.steps if isinstance(step, TileStep)]
    if len(steps) < len(executable.program.steps):
        names = ", ".join(step.name for step in executable.program.steps if not isinstance(step, TileStep))
        raise ModelError(f"{executable.graph.name}: RTL runs take programs without host operations; this has {names}")
    return steps


def run_rtl(executable: SystolicExecutable, inputs: Values) -> RtlRun:
    """Run a program on the RTL of its design in Amaranth's simulator, restarted between its steps.

    Raises
    ------
    ModelError: the program has host operations.
    UsageError: it uses operations that have no RTL.
    """
    from accelerators.systolic.rtl import MatmulEngine
    from dse.rtl.harness import TileSimulation
    from dse.rtl.machine import TileMachine

    _require_rtl(executable)
    steps = _tile_steps(executable)
    target = executable.program.machine
    simulation = TileSimulation(TileMachine(target, MatmulEngine(target)), target)
    memory, cycles = executable.load_inputs(inputs), RESTART_CYCLES * (len(steps) - 1)
    for step in steps:
        run = simulation.run(step, memory)
        memory, cycles = np.asarray(run.memory), cycles + run.cycles
    outputs = {name: executable.read(memory, name) for name in executable.graph.outputs}
    return RtlRun(outputs, cycles)


def emit(executable: SystolicExecutable, cases: Sequence[VerificationCase], folder: Path) -> Sequence[Path]:
    """Verilog of the design and a testbench that runs every case on it: expected bytes, predicted cycles.

    Raises
    ------
    ModelError: a case is not a systolic program, or has host operations.
    UsageError: the program uses operations that have no RTL.
    DseError: Yosys is missing.
    """
    from accelerators.systolic.rtl import MatmulEngine
    from dse.rtl.emit import emit as emit_files
    from dse.rtl.machine import TileMachine

    _require_rtl(executable)
    target = executable.program.machine
    component = TileMachine(target, MatmulEngine(target))
    vectors = [vectors for case in cases for vectors in _vectors(case)]
    return list(emit_files(component, target, folder, name="systolic", steps_with_vectors=vectors).values())


def _vectors(case: VerificationCase) -> list[StepVectors]:
    """A case as the testbench needs it, step by step: memory before, bytes expected after, predicted cycles.

    Between steps memory is what the interpreter leaves; behind the last one it is what the case expects.
    """
    from dse.rtl.emit import StepVectors

    piece = case.executable
    if not isinstance(piece, SystolicExecutable):
        raise ModelError(f"case {case.name!r} is not a systolic program")
    program, steps = piece.program, _tile_steps(piece)
    memory = piece.load_inputs(case.inputs)
    result = []
    for step in steps:
        after = memory.copy()
        run_step(step, program.machine, after)
        if step is steps[-1]:
            for name, values in case.expected.items():
                write_tensor(after, program.placements[name], np.asarray(values))
        places = [program.placements[name] for name in case.expected]
        regions = tuple((place.base, after[place.base : place.base + place.bytes].copy()) for place in places)
        cycles = simulate_a(program_graph(replace(program, steps=(step,)))).total_cycles
        result.append(StepVectors(step, memory, regions, cycles))
        memory = after
    return result
