"""What the emitted mesh does not have; apart from the rest, so that asking needs no Amaranth."""

from __future__ import annotations

from accelerators.neuromorphic.hardware import NeuromorphicHardware
from accelerators.neuromorphic.network import Network
from dse.core.errors import Violation


def emission_limits(network: Network | None, hw: NeuromorphicHardware) -> list[Violation]:
    """What of a design, or of a network on it, the emitted mesh does not have."""
    found = []
    if hw.cores_per_tile > 1:
        found.append(Violation("cores_per_tile", hw.cores_per_tile, 1, "", "an emitted router has one core"))
    if hw.payload_bits > 1:
        found.append(Violation("payload_bits", hw.payload_bits, 1, "bits", "emitted cores take spikes; code by rates"))
    if hw.weight_sharing:
        found.append(Violation("weight_sharing", 1, 0, "", "emitted cores hold unrolled synapses"))
    if hw.synchronization == "asynchronous":
        found.append(Violation("asynchronous steps", 1, 0, "", "the cores of an emitted mesh step together"))
    if hw.link_buffer < 2:
        found.append(Violation("link_buffer below 2", 1, 0, "", "a router's queue has an output register"))
    if network is not None:
        inside = [p.delay for p in network.projections if p.source >= len(network.inputs)]
        longest = max(inside, default=1)
        if longest > 1:
            hint = "emitted cores keep events for the next step only"
            found.append(Violation("delay of a spike on the RTL", longest, 1, "steps", hint))
    return found
