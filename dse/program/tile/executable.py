"""TileExecutable: what every compiled tile program offers, and how it runs on values."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from dse.core.errors import ModelError
from dse.ir import Graph, Op
from dse.ir.reference import run_op_quantized
from dse.program.executable import Executable
from dse.program.tile.interpreter import run_program
from dse.program.tile.memory_map import MemoryMap
from dse.program.tile.program import HostStep, TileProgram
from dse.program.tile.tensors import Int8Array, Memory, read_tensor, write_tensor


class TileExecutable(Executable):
    """An Executable whose program is a tile program, with host operations between its steps.

    Attributes
    ----------
    program, graph
        The tile program and the network it was compiled from.
    """

    program: TileProgram
    graph: Graph

    @property
    @abstractmethod
    def memory_map(self) -> MemoryMap:
        """Where the program's data lies."""

    @abstractmethod
    def owner(self, tensor: str) -> str:
        """The tensor whose bytes `tensor` shares: itself, or what it is another view of."""

    @abstractmethod
    def host_op(self, step: HostStep) -> Op:
        """The op that a host step computes."""

    def load_inputs(self, inputs: Mapping[str, npt.NDArray[Any]]) -> Memory:
        """A fresh memory image with the int8 graph inputs written.

        Raises
        ------
        ModelError: compiled from shapes only, an input is missing, has another shape or is not int8.
        """
        if self.program.image is None:
            raise ModelError(f"{self.graph.name}: compiled for time and energy only; to run values, quantize all of it")
        memory = self.program.image.copy()
        for name in self.graph.inputs:
            shape = self.graph[name].shape
            if name not in inputs or tuple(inputs[name].shape) != shape:
                given = tuple(inputs[name].shape) if name in inputs else "nothing"
                raise ModelError(f"{self.graph.name}: input {name!r} needs shape {shape}, got {given}")
            if inputs[name].dtype != np.int8:
                raise ModelError(
                    f"{self.graph.name}: input {name!r} must be int8, got {inputs[name].dtype}; "
                    "quantize_input() converts real values"
                )
            write_tensor(memory, self.program.placements[name], inputs[name])
        return memory

    def run(
        self, inputs: Mapping[str, npt.NDArray[Any]], *, order_seed: int | None = None
    ) -> dict[str, npt.NDArray[np.int8]]:
        """Execute the program on int8 inputs; `order_seed` picks a random legal order of the engines.

        Raises
        ------
        ModelError: as `load_inputs`.
        """
        memory = self.load_inputs(inputs)
        run_program(self.program, memory, self._run_host, order_seed=order_seed)
        return {name: self.read(memory, name) for name in self.graph.outputs}

    def read(self, memory: Memory, name: str) -> Int8Array:
        """A tensor out of a memory image, in the shape of the graph; a constant is what it is.

        Raises
        ------
        ModelError: the tensor never reaches memory.
        """
        data = self.graph[name].data
        if data is not None:
            return data
        owner = self.owner(name)
        if owner not in self.program.placements:
            raise ModelError(f"{self.graph.name}: {name!r} is never in memory: its layer is fused with the next one")
        return read_tensor(memory, self.program.placements[owner], self.graph[name].shape)

    def _run_host(self, step: HostStep, memory: Memory) -> None:
        op = self.host_op(step)
        values = {name: self.read(memory, name) for name in op.inputs if name and self.graph[name].data is None}
        result = run_op_quantized(self.graph, op, values, self.program.machine.requantize)
        for output in op.outputs:
            if output in self.program.placements:
                write_tensor(memory, self.program.placements[output], result[output])
