"""NeuroCore: event queue, axon fetch, parallel accumulate lanes, neuron update, spike output.

A time step begins with `go`. The events that arrived for it are delivered, every neuron is updated, and the packets of
those that fired go out; then the core is idle. Packets for the next step are accepted all the while: the queue has
two halves, which `go` exchanges. `cycles.step_cycles` is the time from `go` to `idle`, equal by test.
"""

from __future__ import annotations

from typing import Any

from amaranth.hdl import Array, Cat, Module, Mux, Signal, signed
from amaranth.lib import memory, stream, wiring
from amaranth.lib.fifo import SyncFIFOBuffered
from amaranth.lib.wiring import In, Out

from accelerators.neuromorphic.rtl.burst import BurstReader
from accelerators.neuromorphic.rtl.neuron import LATENCY, NeuronUpdate
from accelerators.neuromorphic.rtl.shape import CoreImage, CoreShape, bits_of

#: Packets that may wait for the network; more than are on their way when it stops taking them.
OUTPUT_DEPTH = 8
#: Words of a bank of a deep memory (a block RAM of the ECP5 is as deep), and cycles of a read of it: the memory, a
#: register behind each bank, and the choice among banks.
BANK_WORDS, BANKED_READ = 2048, 3


def packet_layout(shape: CoreShape) -> int:
    """Bits of a packet: axon, core."""
    return shape.widths.axon + shape.widths.core


class NeuroCore(wiring.Component):
    """One core of `shape`, its memories filled with `image`.

    Members
    -------
    go : In(1)
        Begins a step; only while `idle`.
    idle : Out(1)
    incoming : In(stream)
        An axon: an event for the next step. Always taken.
    outgoing : Out(stream)
        A packet: axon, core.
    fired, neuron : Out
        A neuron fires in this cycle, for observation.

    Attributes
    ----------
    states : memory.Memory
        A neuron a word: current, voltage, waiting; open to a simulation's testbench.
    """

    def __init__(self, shape: CoreShape, image: CoreImage) -> None:
        self.shape, self.image = shape, image
        bits = 2 * shape.widths.state + shape.widths.refractory
        self.states = memory.Memory(shape=bits, depth=max(shape.neurons, 2), init=image.states)
        super().__init__(
            {
                "go": In(1),
                "idle": Out(1),
                "incoming": In(stream.Signature(shape.widths.axon)),
                "outgoing": Out(stream.Signature(packet_layout(shape))),
                "fired": Out(1),
                "neuron": Out(range(shape.neurons)),
            }
        )

    def elaborate(self, platform: Any) -> Module:
        m = Module()
        phase = _Phase(m, self)
        charges = self._deliver(m, phase)
        spikes, count = self._update(m, phase, charges)
        self._emit(m, phase, spikes, count)
        return m

    def _deliver(self, m: Module, phase: _Phase) -> tuple[Any, Any, Any]:
        """Events of this step through the synapses into the charges; gives (row, charges, clear) of the update."""
        shape, widths = self.shape, self.shape.widths
        count_bits = bits_of(shape.axons)
        half, arrived = Signal(), Signal(count_bits)
        queue = _memory(m, "queue", widths.axon, 2 << count_bits, ())
        write, listed = queue.write_port(), _registered(m, queue, "listed")
        m.d.comb += [
            write.addr.eq(Cat(arrived, ~half)),
            write.data.eq(self.incoming.payload),
            write.en.eq(self.incoming.valid),
            self.incoming.ready.eq(1),
        ]
        m.d.sync += arrived.eq(arrived + self.incoming.valid)
        with m.If(self.go):
            m.d.sync += [half.eq(~half), arrived.eq(0), phase.events.eq(arrived + self.incoming.valid)]
        axon_bits = widths.synapse_address + widths.words + widths.row
        table = _registered(m, _memory(m, "axons", axon_bits, shape.axons, self.image.axons), "table")
        walk = BurstReader(widths.axon, count_bits, widths.synapse_address, widths.words, widths.row)
        m.submodules.deliver = walk
        m.d.comb += [
            walk.start.eq(phase.start_deliver),
            walk.entries.eq(phase.events),
            listed.addr.eq(Cat(walk.list_address, half)),
            walk.list_data.eq(listed.data),
            table.addr.eq(walk.descriptor_address),
            walk.descriptor_data.eq(table.data),
            walk.room.eq(1),
        ]
        synapse_bits = shape.slot_bits * shape.lanes
        word = _banked(m, "synapses", synapse_bits, shape.synapse_words, self.image.synapses, walk.address)
        there = _delayed(m, walk.valid, BANKED_READ)
        row = _delayed(m, (walk.tag + walk.index)[: widths.row], BANKED_READ)
        m.d.comb += phase.delivering.eq(walk.busy | _pending(m, walk.busy, BANKED_READ + 1))
        return self._charges(m, word, there, row)

    def _charges(self, m: Module, word: Any, there: Any, row: Any) -> tuple[Any, Any, Any]:
        """A small memory a lane, read and written in one cycle: words follow each other without hazard.

        Address and weight come from registers: only the read, the sum and the write share a cycle. `clear` (a bit a
        lane) and `update_row` take effect a cycle later, and so do the charges that are given back.
        """
        shape, widths = self.shape, self.shape.widths
        update_row, clear = Signal(range(shape.rows), name="update_row"), Signal(shape.lanes)
        charges = []
        for lane in range(shape.lanes):
            array = _memory(m, f"charge{lane}", shape.charge_bits, shape.rows, ())
            read, write = array.read_port(domain="comb"), array.write_port()
            slot = word[lane * shape.slot_bits : (lane + 1) * shape.slot_bits]
            target = slot[widths.weight :] if shape.layout == "sparse" else row
            address = Signal(range(shape.rows), name=f"address{lane}")
            weight = Signal(signed(widths.weight), name=f"weight{lane}")
            adds, writes = Signal(name=f"adds{lane}"), Signal(name=f"writes{lane}")
            m.d.sync += [
                address.eq(Mux(there, target, update_row)),
                weight.eq(Mux(there, slot[: widths.weight], 0)),
                adds.eq(there),
                writes.eq(there | clear[lane]),
            ]
            kept = read.data & adds.replicate(shape.charge_bits)
            m.d.comb += [
                read.addr.eq(address),
                write.addr.eq(address),
                write.en.eq(writes),
                write.data.eq(kept.as_signed() + weight),
            ]
            charges.append(read.data.as_signed())
        return update_row, charges, clear

    def _update(self, m: Module, phase: _Phase, charges: tuple[Any, Any, Any]) -> tuple[Any, Any]:
        """All neurons through the pipeline; gives the port that lists those that fired, and their number."""
        shape, widths = self.shape, self.shape.widths
        update_row, lanes, clear = charges
        number = Signal(range(shape.neurons))
        running = Signal()
        lane_bits = bits_of(shape.lanes - 1) if shape.lanes > 1 else 0
        m.submodules.states = self.states
        state, write = _registered(m, self.states, "state"), self.states.write_port()
        fixed_bits = widths.state + widths.profile
        fixed = _registered(m, _memory(m, "neurons", fixed_bits, shape.neurons, self.image.neurons), "fixed")
        profile_bits = 2 * widths.state + 27 + widths.refractory
        table = _memory(m, "profiles", profile_bits, shape.profiles, self.image.profiles).read_port(domain="comb")
        spikes = _memory(m, "spikes", bits_of(shape.neurons - 1), shape.neurons, ())
        listed, count = spikes.write_port(), Signal(range(shape.neurons + 1))
        m.submodules.update = unit = NeuronUpdate(shape)
        lane = number[:lane_bits]
        charge = Signal(signed(shape.charge_bits))
        m.d.comb += [
            update_row.eq(number >> lane_bits),
            state.addr.eq(number),
            fixed.addr.eq(number),
            clear.eq(running << lane if lane_bits else running),
            table.addr.eq(fixed.data[widths.state :]),
        ]
        m.d.sync += charge.eq(Array(lanes)[_delayed(m, lane, 1)] if lane_bits else lanes[0])
        with m.If(phase.start_update):
            m.d.sync += [running.eq(1), number.eq(0), count.eq(0)]
        with m.Elif(running):
            m.d.sync += [number.eq(number + 1), running.eq(number != shape.neurons - 1)]
        # profiles are looked up in a cycle of their own
        m.d.sync += [
            unit.charge.eq(charge),
            unit.bias.eq(fixed.data[: widths.state]),
            unit.current.eq(state.data[: widths.state]),
            unit.voltage.eq(state.data[widths.state : 2 * widths.state]),
            unit.waiting.eq(state.data[2 * widths.state :]),
            unit.profile.eq(table.data),
        ]
        m.d.comb += unit.valid.eq(_delayed(m, running, 3))
        back = _delayed(m, number, 3 + LATENCY)
        m.d.comb += [
            write.addr.eq(back),
            write.en.eq(unit.done),
            write.data.eq(Cat(unit.new_current, unit.new_voltage, unit.new_waiting)),
            self.fired.eq(unit.done & unit.fired),
            self.neuron.eq(back),
            listed.addr.eq(count),
            listed.data.eq(back),
            listed.en.eq(self.fired),
            phase.updating.eq(running | _pending(m, running, 3 + LATENCY)),
        ]
        with m.If(self.fired):
            m.d.sync += count.eq(count + 1)
        return spikes, count

    def _emit(self, m: Module, phase: _Phase, spikes: Any, count: Any) -> None:
        """Packets of the neurons that fired, in order."""
        shape, widths = self.shape, self.shape.widths
        address_bits = bits_of(shape.packets)
        neuron_bits = bits_of(shape.neurons - 1)
        fired = _registered(m, spikes, "spike")
        fanout = _registered(m, _memory(m, "fanouts", 2 * address_bits, shape.neurons, self.image.fanouts), "fanout")
        word_bits = packet_layout(shape) + widths.delay
        m.submodules.out = out = SyncFIFOBuffered(width=packet_layout(shape), depth=OUTPUT_DEPTH)
        walk = BurstReader(neuron_bits, len(count), address_bits, address_bits, 0)
        m.submodules.emit = walk
        packet = _banked(m, "packets", word_bits, shape.packets, self.image.packets, walk.address)
        credit = Signal(range(OUTPUT_DEPTH + 1), init=OUTPUT_DEPTH)
        taken = Signal()
        m.d.comb += [
            walk.start.eq(phase.start_emit),
            walk.entries.eq(count),
            fired.addr.eq(walk.list_address),
            walk.list_data.eq(fired.data),
            fanout.addr.eq(walk.descriptor_address),
            walk.descriptor_data.eq(fanout.data),
            walk.room.eq(credit != 0),
            out.w_data.eq(packet),
            out.w_en.eq(_delayed(m, walk.valid, BANKED_READ)),
            self.outgoing.payload.eq(out.r_data),
            self.outgoing.valid.eq(out.r_rdy),
            out.r_en.eq(self.outgoing.ready),
            taken.eq(out.r_rdy & self.outgoing.ready),
            phase.emitting.eq(walk.busy | (credit != OUTPUT_DEPTH)),
        ]
        with m.If(walk.valid & ~taken):
            m.d.sync += credit.eq(credit - 1)
        with m.Elif(taken & ~walk.valid):
            m.d.sync += credit.eq(credit + 1)


class _Phase:
    """The order of a step: deliver, update, emit; a phase begins in the cycle after the last one ended."""

    def __init__(self, m: Module, core: NeuroCore) -> None:
        self.events = Signal(bits_of(core.shape.axons), name="events")
        self.start_deliver, self.start_update, self.start_emit = (
            Signal(name=f"start_{name}") for name in ("deliver", "update", "emit")
        )
        self.delivering, self.updating, self.emitting = (
            Signal(name=name) for name in ("delivering", "updating", "emitting")
        )
        with m.FSM(name="phase"):
            with m.State("IDLE"):
                m.d.comb += core.idle.eq(~core.go)
                with m.If(core.go):
                    m.next = "DELIVER"
            for name, start, busy, following in (
                ("DELIVER", self.start_deliver, self.delivering, "UPDATE"),
                ("UPDATE", self.start_update, self.updating, "EMIT"),
                ("EMIT", self.start_emit, self.emitting, "IDLE"),
            ):
                with m.State(name):
                    m.d.comb += start.eq(1)
                    m.next = f"{name}_RUN"
                with m.State(f"{name}_RUN"):
                    # the first cycle of a walk only takes its number of entries over
                    m.next = f"{name}_WAIT"
                with m.State(f"{name}_WAIT"), m.If(~busy):
                    m.next = following


def _memory(m: Module, name: str, width: int, depth: int, init: tuple[int, ...]) -> memory.Memory:
    array = memory.Memory(shape=width, depth=max(depth, 2), init=init)
    m.submodules[name] = array
    return array


class _Read:
    """A read port with a register behind it: data belong to the address of two cycles ago."""

    def __init__(self, addr: Any, data: Signal) -> None:
        self.addr, self.data = addr, data


def _registered(m: Module, array: memory.Memory, name: str) -> _Read:
    port = array.read_port()
    data = Signal(len(port.data), name=f"{name}_data")
    m.d.sync += data.eq(port.data)
    return _Read(port.addr, data)


def _banked(m: Module, name: str, width: int, depth: int, init: tuple[int, ...], address: Any) -> Any:
    """Reads of a memory of any depth: data belong to the address of `BANKED_READ` cycles ago."""
    banks = []
    for number, first in enumerate(range(0, depth, BANK_WORDS)):
        words = init[first : first + BANK_WORDS]
        array = _memory(m, f"{name}{number}", width, min(BANK_WORDS, depth - first), words)
        bank = _registered(m, array, f"{name}{number}")
        m.d.comb += bank.addr.eq(address)
        banks.append(bank.data)
    data = Signal(width, name=f"{name}_data")
    chosen = _delayed(m, address[BANK_WORDS.bit_length() - 1 :], 2) if len(banks) > 1 else None
    m.d.sync += data.eq(banks[0] if chosen is None else Array(banks)[chosen])
    return data


def _delayed(m: Module, value: Any, cycles: int) -> Any:
    for _ in range(cycles):
        later = (
            Signal.like(value, name=f"{getattr(value, 'name', 'value')}_d")
            if isinstance(value, Signal)
            else Signal(value.shape())
        )
        m.d.sync += later.eq(value)
        value = later
    return value


def _pending(m: Module, value: Any, cycles: int) -> Any:
    """Whether `value` was high in one of the last `cycles` cycles."""
    past = Signal(cycles)
    m.d.sync += past.eq(past << 1 | value)
    return past.any()
