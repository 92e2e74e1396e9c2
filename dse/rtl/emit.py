"""Emission of a machine: Verilog, a self-checking testbench, its vectors, and a listing of the descriptors.

rtl/<name>.v               the machine, one file, no dependencies
tb/tb_<name>.v             the testbench, run in the emitted folder
vectors/<step>_*.hex       queues (64-bit words), memory image and expected bytes, for $readmemh
descriptors/<step>.json    the same descriptors by field name
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from amaranth._toolchain.yosys import YosysError, find_yosys
from amaranth.back import rtlil
from amaranth.lib import wiring

from dse.core.errors import DseError, InfeasibleError, UsageError, Violation
from dse.program.tile.encode import encode_descriptor
from dse.program.tile.isa import DESCRIPTOR_BYTES, ENGINES, Descriptor
from dse.program.tile.program import Machine, TileStep
from dse.rtl.testbench import BenchStep, testbench_text

ByteArray = npt.NDArray[np.uint8]

#: Width of the program port's words.
_QUEUE_WORD_BITS = 64
_BYTES_PER_LINE = 16
#: The oldest Yosys that Amaranth 0.5 writes its intermediate form for.
_YOSYS_VERSION = (0, 40)


@dataclass(frozen=True, eq=False)
class StepVectors:
    """A step with the values and the time it must show.

    Attributes
    ----------
    step
        Its queues run as they are.
    memory : uint8, shape (bytes,)
        Contents before the step.
    regions
        (byte address, expected bytes afterwards); the step may write nowhere else.
    cycles
        Predicted, from the cycle of `start` to the one in which `done` is high.
    """

    step: TileStep
    memory: ByteArray
    regions: tuple[tuple[int, ByteArray], ...]
    cycles: int


def queue_words(queue: Sequence[Descriptor], machine: Machine, subject: str) -> list[int]:
    """A queue as 64-bit words, eight per descriptor, lowest bits first.

    Raises
    ------
    InfeasibleError: more descriptors than the machine's descriptor memory holds; `subject` names the queue.
    """
    if len(queue) > machine.descriptors:
        raise InfeasibleError(subject, [Violation("queue length", len(queue), machine.descriptors, "descriptors")])
    mask = (1 << _QUEUE_WORD_BITS) - 1
    parts = range(0, 8 * DESCRIPTOR_BYTES, _QUEUE_WORD_BITS)
    return [word >> part & mask for word in map(encode_descriptor, queue) for part in parts]


def _memory_hex(memory: ByteArray) -> str:
    """Bytes for $readmemh; lines of zeros are left out, since the testbench clears its memory first."""
    lines = []
    for address in range(0, len(memory), _BYTES_PER_LINE):
        line = memory[address : address + _BYTES_PER_LINE]
        if line.any():
            lines.append(f"@{address:08x} " + " ".join(f"{int(byte):02x}" for byte in line))
    # an address alone is no data: a memory of zeros still needs one byte
    return "\n".join(lines or ["@00000000 00"]) + "\n"


def _plain_hex(memory: ByteArray) -> str:
    rows = (memory[start : start + _BYTES_PER_LINE] for start in range(0, len(memory), _BYTES_PER_LINE))
    return "\n".join(" ".join(f"{int(byte):02x}" for byte in row) for row in rows) + "\n"


def _listing(vectors: StepVectors) -> str:
    """The step's descriptors by field name, fields of value 0 left out."""
    step = vectors.step
    queues = {
        engine: [{"op": d.op.name, **{name: value for name, value in d.values.items() if value}} for d in queue]
        for engine, queue in step.queues.items()
    }
    entry = {"step": step.name, "ops": step.ops, "predicted_cycles": vectors.cycles, "queues": queues}
    return json.dumps(entry, indent=1) + "\n"


def _checked(vectors: StepVectors) -> StepVectors:
    """The vectors, when every region lies in the memory and holds something.

    Raises
    ------
    UsageError: no region, an empty one, one beyond the memory, or two that overlap.
    """
    name, size = vectors.step.name, len(vectors.memory)
    if not vectors.regions:
        raise UsageError(f"step {name!r} has no expected bytes: its test could not fail")
    end_before = 0
    for base, expected in sorted(vectors.regions, key=lambda region: region[0]):
        end = base + len(expected)
        if base < end_before or end > size or not len(expected):
            raise UsageError(
                f"step {name!r}: expected bytes {base} to {end - 1} are empty, overlap others or leave the "
                f"memory of {size} bytes"
            )
        end_before = end
    return vectors


def _write_step(vectors: StepVectors, slug: str, machine: Machine, files: dict[str, str]) -> BenchStep:
    """Add a step's files to `files` (path: text) and say what the testbench must know of it."""
    queues = {}
    for engine in ENGINES:
        words = queue_words(vectors.step.queues[engine], machine, f"{engine} queue of {vectors.step.name}")
        path = f"vectors/{slug}_{engine}.hex"
        files[path] = "\n".join(f"{word:016x}" for word in words) + "\n"
        queues[engine] = (path, len(words))
    memory_file, expected_file = f"vectors/{slug}_memory.hex", f"vectors/{slug}_expected.hex"
    files[memory_file] = _memory_hex(vectors.memory)
    files[expected_file] = _plain_hex(np.concatenate([expected for _, expected in vectors.regions]))
    files[f"descriptors/{slug}.json"] = _listing(vectors)
    regions = [(base, len(expected)) for base, expected in vectors.regions]
    return BenchStep(slug, memory_file, expected_file, queues, regions, vectors.cycles)


def machine_verilog(component: wiring.Component, name: str) -> str:
    """Verilog-2005 of a component as module `name`, without source positions.

    Raises
    ------
    DseError: the Yosys that Amaranth converts with is missing.
    """
    script = [
        f"read_rtlil <<rtlil\n{rtlil.convert(component, name=name, emit_src=False)}\nrtlil",
        # Whole `proc`, unlike Amaranth's own back end: combinational logic becomes continuous assignments.
        # As `always @*` blocks, those whose inputs settle before the block first waits stay undefined in an
        # event-driven simulator, and the undefined bit spreads.
        "proc",
        "memory_collect",
        "clean",
        "write_verilog -noattr",
    ]
    try:
        yosys = find_yosys(lambda version: version >= _YOSYS_VERSION)
    except YosysError as error:
        raise DseError(
            f"Verilog of {name!r} needs Yosys: {error}; `pip install 'amaranth[builtin-yosys]'` brings one"
        ) from error
    text: str = yosys.run(["-q", "-"], "\n".join(script), ignore_warnings=True)
    return text


def emit(
    component: wiring.Component,
    machine: Machine,
    folder: Path,
    *,
    name: str,
    steps_with_vectors: Sequence[StepVectors],
) -> dict[str, Path]:
    """Write a machine's Verilog, testbench, vectors and descriptor listings into `folder`.

    Parameters
    ----------
    component
        A `dse.rtl.machine.TileMachine`.
    machine
        Its geometry.
    folder
        Made when missing; files of the same names are replaced.
    name
        Of the top module: a Verilog identifier.
    steps_with_vectors
        Steps that the testbench runs, one after the other on the same machine; at least one.

    Returns
    -------
    dict: path inside the folder -> path, of every file written.

    Raises
    ------
    UsageError: the name is no identifier, there is no step, or expected bytes lie outside the memory.
    InfeasibleError: a queue is longer than the descriptor memory. DseError: Yosys is missing.
    """
    if not re.fullmatch(r"[A-Za-z][A-Za-z0-9_]*", name):
        raise UsageError(f"{name!r} cannot name a Verilog module: letters, digits and _, a letter first")
    if not steps_with_vectors:
        raise UsageError(f"{name!r} is emitted without a step: its testbench could not fail")
    files: dict[str, str] = {}
    steps = []
    for index, vectors in enumerate(steps_with_vectors):
        slug = f"{index:02d}_{re.sub(r'[^A-Za-z0-9]+', '_', vectors.step.name).strip('_')}"
        steps.append(_write_step(_checked(vectors), slug, machine, files))
    memory_bytes = max(len(vectors.memory) for vectors in steps_with_vectors)
    files[f"tb/tb_{name}.v"] = testbench_text(name, machine, steps, memory_bytes)
    files[f"rtl/{name}.v"] = machine_verilog(component, name)
    written = {path: folder / path for path in sorted(files)}
    for path, target in written.items():
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(files[path], encoding="ascii")
    return written
