"""Text of the self-checking testbench: plain Verilog for Icarus Verilog or `verilator --binary --timing`.

The testbench drives on falling edges and the machine samples on rising ones, so no simulator's event order can
change a cycle count. Its memory behaves as the one of `dse.rtl.harness`: read when a request is accepted, written
when a beat is acknowledged, both a fixed latency apart.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from string import Template

from dse.program.tile.isa import ENGINES
from dse.program.tile.program import Machine

#: A run is given up beyond twice its predicted cycles and this many more.
TIMEOUT_MARGIN_CYCLES = 1000


@dataclass(frozen=True)
class BenchStep:
    """What the testbench has to know of one step; paths are relative to the folder it is run in.

    `queues` gives, by engine, the file and its 64-bit words; `regions` (byte address, bytes) lie one after the
    other in `expected_file`.
    """

    name: str
    memory_file: str
    expected_file: str
    queues: Mapping[str, tuple[str, int]]
    regions: Sequence[tuple[int, int]]
    cycles: int


_BENCH = Template("""\
// Self-checking testbench of $name: for each step it loads the descriptor queues and the memory, starts the
// machine, and compares the cycles with the predicted ones and the written bytes with the expected ones.
// Run it in the folder that holds `vectors/`. It ends with `PASS cycles=N steps=M`, or with a fatal error.
`timescale 1ns/1ns
module tb_$name;
  localparam BEAT_BYTES = $beat_bytes;
  localparam LATENCY = $latency;
  localparam MEMORY_BYTES = $memory_bytes;
  localparam EXPECTED_BYTES = $expected_bytes;
  localparam QUEUE_WORDS = $queue_words;
  localparam STEPS = $steps;

  reg clk = 0;
  reg rst = 1;
  reg start = 0;
  reg load_enable = 0;
  reg [1:0] load_queue = 0;
  reg [$address_msb:0] load_address = 0;
  reg [63:0] load_data = 0;
  wire done;
  wire [31:0] counted;
  wire read_valid, write_valid;
  wire [31:0] read_address, write_address;
  wire [8*BEAT_BYTES-1:0] write_data;
  wire [$bytes_msb:0] write_bytes;

  always #5 clk = ~clk;

  // Memory: slot `slot` of each line was filled LATENCY cycles ago.
  reg [7:0] memory [0:MEMORY_BYTES-1];
  reg writable [0:MEMORY_BYTES-1];
  reg [LATENCY-1:0] read_pending = 0;
  reg [LATENCY-1:0] write_pending = 0;
  reg [8*BEAT_BYTES-1:0] read_line [0:LATENCY-1];
  reg [8*BEAT_BYTES-1:0] write_line [0:LATENCY-1];
  reg [31:0] write_line_address [0:LATENCY-1];
  reg [31:0] write_line_bytes [0:LATENCY-1];
  reg [8*BEAT_BYTES-1:0] beat;
  integer slot = 0;
  integer lane, stray_writes;

  // escaped: the name may be a Verilog keyword
  \\$name dut (
    .clk(clk), .rst(rst), .start(start), .done(done), .cycles(counted),
    .program__en(load_enable), .program__queue(load_queue),
    .program__addr(load_address), .program__data(load_data),
    .read__valid(read_valid), .read__ready(1'b1), .read__addr(read_address),
    .read__data_valid(read_pending[slot]), .read__data(read_line[slot]),
    .write__valid(write_valid), .write__ready(1'b1), .write__addr(write_address),
    .write__data(write_data), .write__bytes(write_bytes), .write__ack(write_pending[slot])
  );

  always @(posedge clk) begin
    if (write_pending[slot])
      for (lane = 0; lane < write_line_bytes[slot]; lane = lane + 1)
        if (write_line_address[slot] + lane >= MEMORY_BYTES)
          stray_writes = stray_writes + 1;
        else begin
          if (!writable[write_line_address[slot] + lane]) stray_writes = stray_writes + 1;
          memory[write_line_address[slot] + lane] = write_line[slot][8*lane +: 8];
        end
    if (read_valid) begin
      for (lane = 0; lane < BEAT_BYTES; lane = lane + 1)
        beat[8*lane +: 8] = read_address + lane < MEMORY_BYTES ? memory[read_address + lane] : 8'h00;
      read_line[slot] <= beat;
    end
    read_pending[slot] <= read_valid;
    write_pending[slot] <= write_valid;
    write_line[slot] <= write_data;
    write_line_address[slot] <= write_address;
    write_line_bytes[slot] <= write_bytes;
    slot <= slot == LATENCY - 1 ? 0 : slot + 1;
  end

  reg [63:0] queue_image [0:QUEUE_WORDS-1];
  reg [7:0] expected [0:EXPECTED_BYTES-1];
  integer index, cycle, wrong, total_cycles;

  task clear_memory;
    begin
      stray_writes = 0;
      for (index = 0; index < MEMORY_BYTES; index = index + 1) begin
        memory[index] = 8'h00;
        writable[index] = 1'b0;
      end
    end
  endtask

  task allow_writes(input integer base, input integer length);
    for (index = base; index < base + length; index = index + 1) writable[index] = 1'b1;
  endtask

  task preload(input integer queue, input integer words);
    begin
      for (index = 0; index < words; index = index + 1) begin
        @(negedge clk);
        load_enable = 1;
        load_queue = queue;
        load_address = index;
        load_data = queue_image[index];
      end
      @(negedge clk);
      load_enable = 0;
    end
  endtask

  task run(input integer predicted);
    begin
      repeat (4) @(negedge clk);
      start = 1;
      @(negedge clk);
      start = 0;
      cycle = 1;
      while (!done && cycle <= 2 * predicted + $margin) begin
        @(negedge clk);
        cycle = cycle + 1;
      end
      if (!done) begin
        $$display("FAIL not done after %0d cycles, predicted %0d", cycle, predicted);
        $$fatal(1, "timeout");
      end
      if (cycle != predicted || counted != predicted) begin
        $$display("FAIL cycles=%0d counter=%0d predicted=%0d", cycle, counted, predicted);
        $$fatal(1, "cycles differ");
      end
      if (stray_writes != 0) begin
        $$display("FAIL %0d bytes written outside the expected regions", stray_writes);
        $$fatal(1, "stray writes");
      end
      total_cycles = total_cycles + cycle;
      wrong = 0;
    end
  endtask

  task check(input integer base, input integer first, input integer length);
    for (index = 0; index < length; index = index + 1)
      if (memory[base + index] !== expected[first + index]) begin
        if (wrong < 8)
          $$display("FAIL byte %0d: got %h, expected %h", base + index, memory[base + index], expected[first + index]);
        wrong = wrong + 1;
      end
  endtask

  task conclude;
    if (wrong != 0) begin
      $$display("FAIL %0d bytes differ", wrong);
      $$fatal(1, "bytes differ");
    end
  endtask

  initial begin
    total_cycles = 0;
    stray_writes = 0;
    repeat (4) @(negedge clk);
    rst = 0;
$body
    $$display("PASS cycles=%0d steps=%0d", total_cycles, STEPS);
    $$finish;
  end
endmodule
""")


def _step_text(step: BenchStep) -> str:
    """The calls that run and check one step."""
    lines = [f"// {step.name}", "clear_memory;", f'$readmemh("{step.memory_file}", memory);']
    for number, engine in enumerate(ENGINES):
        file, words = step.queues[engine]
        lines += [f'$readmemh("{file}", queue_image, 0, {words - 1});', f"preload({number}, {words});"]
    total = sum(length for _, length in step.regions)
    lines.append(f'$readmemh("{step.expected_file}", expected, 0, {total - 1});')
    lines += [f"allow_writes({base}, {length});" for base, length in step.regions]
    lines.append(f"run({step.cycles});")
    first = 0
    for base, length in step.regions:
        lines.append(f"check({base}, {first}, {length});")
        first += length
    lines += ["conclude;", f'$display("STEP {step.name} cycles=%0d", cycle);']
    return "\n".join(f"    {line}" for line in lines)


def testbench_text(name: str, machine: Machine, steps: Sequence[BenchStep], memory_bytes: int) -> str:
    """The testbench module `tb_<name>` of the top module `name`, a `dse.rtl.machine.TileMachine`.

    Parameters
    ----------
    name
        A Verilog identifier.
    machine
        Gives the memory port's width and latency and the size of the descriptor memories.
    steps
        At least one; each with at least one word a queue and one region.
    memory_bytes
        Size of the modelled memory.
    """
    queue_words = 8 * machine.descriptors
    return _BENCH.substitute(
        name=name,
        beat_bytes=machine.memory_bytes_per_cycle,
        latency=machine.memory_latency_cycles,
        memory_bytes=memory_bytes,
        expected_bytes=max(sum(length for _, length in step.regions) for step in steps),
        queue_words=queue_words,
        steps=len(steps),
        address_msb=(queue_words - 1).bit_length() - 1,
        bytes_msb=machine.memory_bytes_per_cycle.bit_length() - 1,
        margin=TIMEOUT_MARGIN_CYCLES,
        body="\n".join(_step_text(step) for step in steps),
    )
