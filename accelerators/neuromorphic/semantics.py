"""What a core computes, in plain integers: the one definition that simulator, tables and RTL share.

One time step of one core, in this order:

1. **Deliver.** Every event that is due in this step adds `weight * payload` to the charge of each target neuron. An
   event emitted in step t with delay d is due in step t + d, d >= 1; an event from outside is due in the step it is
   given for. Payload is 1 on cores with binary spikes. The sum is exact and so independent of the order of arrival:
   `charge_bounds` tells the range it can reach and a core whose `charge_bits` cannot hold it is refused when tables
   are built.
2. **Update.** Neurons in index order, each once a step whether it got events or not (`update`):

       while waiting > 0:  u <- saturate(decay(u, keep_current) + charge * 2**fraction_bits)
                           waiting <- waiting - 1;  v stays;  no spike
       else:               u <- saturate(decay(u, keep_current) + charge * 2**fraction_bits + bias)
                           v <- saturate(decay(v, keep_voltage) + u)
                           fires if v > threshold (strict)
       on a spike:      v <- saturate(v - reset) when `subtract`, else v <- reset;  waiting <- refractory

   `saturate` clips to a signed integer of `state_bits`. The sum under a saturate is exact: it saturates once.
   `decay(x, keep)` is x * keep / 4096 truncated toward zero, keep in 0..4096 (4096: no decay, 0: forget). A core whose
   decay is a shift by s computes |x| - ceil(|x| / 2**s), which is the same for keep = 4096 - 2**(12 - s), s in 0..12;
   it takes those values of keep, and 4096, and no others (`shift_of`).
   `fraction_bits` is one number for the whole chip: states keep that many bits below the unit of a weight, so that a
   decay does not round small potentials away; `bias`, `threshold` and `reset` are in units of the state.
   Charges are zero afterwards. `waiting` starts at `initial_waiting`: a layer that lags the input by so many steps
   does not integrate its bias before its first input can arrive.
3. **Emit.** Neurons that fired, in index order, send the packets of their fan-out rows in order; payload 1.

Neuron models are values of these parameters: LIF keep_current = 0; IF also keep_voltage = 4096; CubaLIF
keep_current > 0; LI and CubaLI threshold = `never(state_bits)`, the largest state, which nothing exceeds.
A fire-if-at-least comparison is `threshold = theta - 1`, and soft reset then subtracts `reset = theta`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

#: Fraction bits of `keep`, the factor of a decay (Loihi's decay has 12 as well).
DECAY_BITS = 12
KEEP_ALL = 1 << DECAY_BITS
#: Spikes travel at least this many steps: a step's events are complete before its updates begin.
MIN_DELAY = 1


@dataclass(frozen=True, order=True)
class NeuronProfile:
    """Parameters that many neurons of a core share; `threshold` and `reset` are signed states of `state_bits`.

    `keep_current`, `keep_voltage`: 0..4096. `refractory`: steps a neuron holds still after a spike.
    """

    threshold: int
    reset: int = 0
    subtract: bool = False
    keep_current: int = 0
    keep_voltage: int = KEEP_ALL
    refractory: int = 0


@dataclass(frozen=True)
class NeuronState:
    """Synaptic current u, membrane potential v, and the steps it still has to hold still."""

    current: int = 0
    voltage: int = 0
    waiting: int = 0


def state_range(bits: int) -> tuple[int, int]:
    """Smallest and largest signed integer of `bits`."""
    return -(1 << (bits - 1)), (1 << (bits - 1)) - 1


def never(state_bits: int) -> int:
    """The threshold of a neuron that never fires."""
    return state_range(state_bits)[1]


def saturate(value: int, bits: int) -> int:
    """`value` clipped to a signed integer of `bits`."""
    low, high = state_range(bits)
    return min(max(value, low), high)


def decay(value: int, keep: int) -> int:
    """value * keep / 4096, truncated toward zero."""
    product = abs(value) * keep >> DECAY_BITS
    return product if value >= 0 else -product


def shift_of(keep: int) -> int | None:
    """The shift s for which |x| - ceil(|x| / 2**s) equals `decay(x, keep)`; None when keep is not 4096 - 2**(12 - s).

    keep = 4096 is no decay at all and needs no shift; it gives None as well.
    """
    lost = KEEP_ALL - keep
    if lost <= 0 or lost & (lost - 1):
        return None
    return DECAY_BITS - (lost.bit_length() - 1)


def shift_decay(value: int, shift: int) -> int:
    """|value| - ceil(|value| / 2**shift) with the sign of value: what a core with a shifter computes."""
    magnitude = abs(value)
    magnitude -= (magnitude + (1 << shift) - 1) >> shift
    return magnitude if value >= 0 else -magnitude


def update(
    profile: NeuronProfile, bias: int, state: NeuronState, charge: int, state_bits: int, fraction_bits: int = 0
) -> tuple[NeuronState, bool]:
    """One neuron, one step: new state and whether it fires."""
    drive = decay(state.current, profile.keep_current) + (charge << fraction_bits)
    if state.waiting:
        return NeuronState(saturate(drive, state_bits), state.voltage, state.waiting - 1), False
    current = saturate(drive + bias, state_bits)
    voltage = saturate(decay(state.voltage, profile.keep_voltage) + current, state_bits)
    if voltage <= profile.threshold:
        return NeuronState(current, voltage, 0), False
    after = saturate(voltage - profile.reset, state_bits) if profile.subtract else profile.reset
    return NeuronState(current, after, profile.refractory), True


def deliver(charges: list[int], synapses: Iterable[tuple[int, int]], payload: int = 1) -> None:
    """Add one event to `charges` (by neuron) through its (target, weight) synapses."""
    for target, weight in synapses:
        charges[target] += weight * payload


def step(
    profiles: Sequence[NeuronProfile],
    biases: Sequence[int],
    states: list[NeuronState],
    charges: list[int],
    state_bits: int,
    fraction_bits: int = 0,
) -> list[int]:
    """Update all neurons of a core once, clear `charges`, and return the neurons that fired, in order."""
    fired = []
    for neuron, profile in enumerate(profiles):
        states[neuron], spike = update(
            profile, biases[neuron], states[neuron], charges[neuron], state_bits, fraction_bits
        )
        charges[neuron] = 0
        if spike:
            fired.append(neuron)
    return fired


def charge_bounds(weights: Iterable[int], largest_payload: int = 1) -> tuple[int, int]:
    """Lowest and highest charge that one neuron with these incoming weights can reach in one step.

    Every synapse is taken to be active at once with the largest payload, which is the bound for any activity in
    which an axon carries one event a step.
    """
    low = high = 0
    for weight in weights:
        low += min(weight, 0)
        high += max(weight, 0)
    return low * largest_payload, high * largest_payload


def bits_for(low: int, high: int) -> int:
    """Bits of the smallest signed integer that holds low..high."""
    return 1 + max(max(high, 0).bit_length(), (-low - 1).bit_length() if low < 0 else 0)
