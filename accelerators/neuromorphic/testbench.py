"""A self-checking Verilog testbench of an emitted mesh.

rtl/<name>.v               the mesh, one file, its memories filled with the network
tb/tb_<name>.v             the testbench, run in the emitted folder
vectors/<case>_*.hex       events and expected outputs of every step, expected potentials, initial states

Between cases the mesh is reset and its state memories are loaded anew, as configuring the chip would.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from string import Template

import numpy as np
import numpy.typing as npt

from accelerators.neuromorphic.emitted import MeshProgram, MeshTiming
from accelerators.neuromorphic.rtl.mesh import Mesh
from accelerators.neuromorphic.rtl.shape import image_of
from dse.rtl.emit import machine_verilog

#: Cycles beyond twice those predicted after which a step is given up.
_MARGIN = 1000


@dataclass(frozen=True, eq=False)
class MeshVectors:
    """One sample as the testbench runs it.

    Parameters
    ----------
    given
        (core, axon) of the events of every step.
    outputs
        Axons of the packets that leave the mesh in every step, in any order.
    potentials
        int64 (steps, neurons): after each step.
    timing
        Predicted cycles.
    """

    name: str
    given: Sequence[Sequence[tuple[int, int]]]
    outputs: Sequence[Sequence[int]]
    potentials: npt.NDArray[np.int64]
    timing: MeshTiming


_BENCH = Template("""\
// Self-checking testbench of $name: gives each step's events, starts it, and compares the cycles with the predicted
// ones, the packets that leave the mesh with the expected ones, and the potential of every neuron.
// Run it in the folder that holds `vectors/`. It ends with `PASS cycles=N steps=M`, or with a fatal error.
`timescale 1ns/1ns
module tb_$name;
  reg clk = 0;
  reg rst = 1;
  reg go = 0;
  reg events_valid = 0;
  reg [$packet_msb:0] events_payload = 0;
  wire events_ready, quiet, outputs_valid;
  wire [$packet_msb:0] outputs_payload;
  always #5 clk = ~clk;

  \\$name dut (
    .clk(clk), .rst(rst), .go(go), .quiet(quiet),
    .events__valid(events_valid), .events__payload(events_payload), .events__ready(events_ready),
    .outputs__valid(outputs_valid), .outputs__payload(outputs_payload), .outputs__ready(1'b1)
  );

  reg [31:0] events [0:$events];
  reg [31:0] bounds [0:$bounds];
  reg [31:0] predicted [0:$bounds];
  reg [31:0] expected_outputs [0:$outputs];
  reg [31:0] output_bounds [0:$bounds];
  reg [$voltage_msb:0] potentials [0:$potentials];
  reg [$axon_msb:0] seen [0:$seen];
  integer step, index, other, cycle, total_cycles, case_cycles, got, wrong, found;

  // at a falling edge the outputs of the cycle have settled
  task watch;
    if (outputs_valid) begin
      if (got <= $seen) seen[got] = outputs_payload[$axon_msb:0];
      got = got + 1;
    end
  endtask

  task check_outputs(input integer first, input integer count);
    begin
      if (got != count) begin
        $$display("FAIL step %0d: %0d packets left the mesh, expected %0d", step, got, count);
        $$fatal(1, "outputs differ");
      end
      for (index = 0; index < count; index = index + 1) begin
        found = 0;
        for (other = 0; other < count; other = other + 1)
          if (seen[other] === expected_outputs[first + index]) found = found + 1;
        if (found != 1) begin
          $$display("FAIL step %0d: output %0d came %0d times", step, expected_outputs[first + index], found);
          $$fatal(1, "outputs differ");
        end
      end
    end
  endtask

  task give_up(input integer limit);
    if (cycle > limit) begin
      $$display("FAIL step %0d not over after %0d cycles, predicted %0d", step, cycle, predicted[step]);
      $$fatal(1, "timeout");
    end
  endtask

  task run_step;
    begin
      cycle = 0;
      got = 0;
      for (index = bounds[step]; index < bounds[step + 1]; index = index + 1) begin
        events_valid = 1;
        events_payload = events[index];
        #1;
        while (!events_ready) begin
          @(negedge clk);
          cycle = cycle + 1;
          give_up(2 * predicted[step] + $margin);
        end
        @(negedge clk);
        cycle = cycle + 1;
      end
      events_valid = 0;
      #1;
      while (!quiet) begin
        @(negedge clk);
        cycle = cycle + 1;
        give_up(2 * predicted[step] + $margin);
      end
      go = 1;
      @(negedge clk);
      cycle = cycle + 1;
      go = 0;
      #1;
      while (!quiet) begin
        watch;
        @(negedge clk);
        cycle = cycle + 1;
        give_up(2 * predicted[step] + $margin);
      end
      if (cycle != predicted[step]) begin
        $$display("FAIL step %0d: cycles=%0d predicted=%0d", step, cycle, predicted[step]);
        $$fatal(1, "cycles differ");
      end
      case_cycles = case_cycles + cycle;
    end
  endtask

  task check_potentials;
    begin
      wrong = 0;
$potential_checks
      if (wrong != 0) begin
        $$display("FAIL step %0d: %0d potentials differ", step, wrong);
        $$fatal(1, "potentials differ");
      end
    end
  endtask

  task configure;
    begin
      rst = 1;
      repeat (4) @(negedge clk);
$state_loads
      rst = 0;
      @(negedge clk);
      while (!quiet) @(negedge clk);
      case_cycles = 0;
    end
  endtask

  initial begin
    total_cycles = 0;
$body
    $$display("PASS cycles=%0d steps=%0d", total_cycles, $cases);
    $$finish;
  end
endmodule
""")


def emit_mesh(program: MeshProgram, cases: Sequence[MeshVectors], folder: Path, name: str) -> list[Path]:
    """Write Verilog, testbench and vectors of a mesh; `cases` not empty.

    Raises
    ------
    DseError: Yosys is missing.
    """
    hw, shape = program.hw, program.shape
    images = [image_of(core, shape) for core in program.configuration.cores]
    files: dict[str, str] = {}
    for number, image in enumerate(images):
        if image.states:
            files[f"vectors/states{number}.hex"] = _hex(image.states)
    slugs = []
    for index, case in enumerate(cases):
        slugs.append(f"{index:02d}_{re.sub(r'[^A-Za-z0-9]+', '_', case.name).strip('_')}")
        files |= _case_files(slugs[-1], case, program)
    files[f"tb/tb_{name}.v"] = _bench(name, program, cases, slugs)
    component = Mesh(shape, images, hw.mesh_columns, hw.mesh_rows, hw.link_buffer)
    files[f"rtl/{name}.v"] = machine_verilog(component, name)
    for path, text in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, encoding="ascii")
    return [folder / path for path in sorted(files)]


def _hex(words: Sequence[int]) -> str:
    # a file of no words is an error to some simulators
    return "\n".join(f"{word:x}" for word in words or (0,)) + "\n"


def _bounds(parts: Sequence[Sequence[object]]) -> list[int]:
    return [int(bound) for bound in np.cumsum([0, *map(len, parts)])]


def _case_files(slug: str, case: MeshVectors, program: MeshProgram) -> dict[str, str]:
    axon, mask = program.shape.widths.axon, (1 << program.shape.widths.state) - 1
    return {
        f"vectors/{slug}_events.hex": _hex([core << axon | item for step in case.given for core, item in step]),
        f"vectors/{slug}_bounds.hex": _hex(_bounds(case.given)),
        f"vectors/{slug}_cycles.hex": _hex([int(cycles) for cycles in case.timing.cycles]),
        f"vectors/{slug}_outputs.hex": _hex([item for step in case.outputs for item in step]),
        f"vectors/{slug}_output_bounds.hex": _hex(_bounds(case.outputs)),
        f"vectors/{slug}_potentials.hex": _hex([int(v) & mask for v in case.potentials.reshape(-1)]),
    }


def _bench(name: str, program: MeshProgram, cases: Sequence[MeshVectors], slugs: Sequence[str]) -> str:
    widths, neurons = program.shape.widths, program.network.neurons
    low, high = widths.state, 2 * widths.state - 1
    checks = [
        f"      if (dut.core{core}.states[{index}][{high}:{low}] !== potentials[step * {neurons} + {neuron}]) "
        "wrong = wrong + 1;"
        for neuron, (core, index) in enumerate(program.configuration.local)
    ]
    loads = [
        f'      $readmemh("vectors/states{number}.hex", dut.core{number}.states, 0, {tables.neurons - 1});'
        for number, tables in enumerate(program.configuration.cores)
        if tables.neurons
    ]
    steps = [len(case.given) for case in cases]
    most = max(len(step) for case in cases for step in case.outputs)
    return _BENCH.substitute(
        name=name,
        packet_msb=widths.axon + widths.core - 1,
        axon_msb=widths.axon - 1,
        voltage_msb=widths.state - 1,
        events=max(sum(map(len, case.given)) for case in cases) + 1,
        bounds=max(steps) + 1,
        outputs=max(sum(map(len, case.outputs)) for case in cases) + 1,
        seen=most + 1,
        potentials=max(steps) * neurons,
        margin=_MARGIN,
        potential_checks="\n".join(checks),
        state_loads="\n".join(loads),
        cases=len(cases),
        body="\n".join(_case_text(slug, case, neurons) for slug, case in zip(slugs, cases, strict=True)),
    )


def _case_text(slug: str, case: MeshVectors, neurons: int) -> str:
    steps = len(case.given)
    events, packets = max(1, sum(map(len, case.given))), max(1, sum(map(len, case.outputs)))
    reads = (
        ("events", "events", events), ("bounds", "bounds", steps + 1), ("cycles", "predicted", steps),
        ("outputs", "expected_outputs", packets), ("output_bounds", "output_bounds", steps + 1),
        ("potentials", "potentials", steps * neurons),
    )  # fmt: skip
    lines = [f"// {slug}", "configure;"]
    lines += [f'$readmemh("vectors/{slug}_{file}.hex", {array}, 0, {count - 1});' for file, array, count in reads]
    lines += [
        f"for (step = 0; step < {steps}; step = step + 1) begin",
        "  run_step;",
        "  check_outputs(output_bounds[step], output_bounds[step + 1] - output_bounds[step]);",
        "  check_potentials;",
        "end",
        "total_cycles = total_cycles + case_cycles;",
        f'$display("STEP {slug} cycles=%0d", case_cycles);',
    ]
    return "\n".join(f"    {line}" for line in lines)
