"""Arm Vela's performance estimate for Ethos-U55 and U65: the peer's own formulas, never searched.

Vela plans a network as a list of NPU operations and takes, operation by operation, the larger of the NPU's cycles
and those of every memory. What is modelled here is its native core of version 5.2.0: the search for the block in
which the output is made, cycles of a block, bytes with the penalty of short bursts, weights moved to SRAM in slices.
Not modelled: cascades (stripes of several operations) and U85.

Source: ethos-u-vela 5.2.0 (Apache-2.0), re-written from its description in words and checked against its runs
(tests/conformance/test_vela.py).
"""

from dse.peers.vela.estimate import NetworkEstimate, OperationEstimate, estimate
from dse.peers.vela.hardware import NPUS, SYSTEMS, Memory, Npu, System
from dse.peers.vela.operation import FeatureMap, VelaOperation, Weights

__all__ = [
    "NPUS",
    "SYSTEMS",
    "FeatureMap",
    "Memory",
    "NetworkEstimate",
    "Npu",
    "OperationEstimate",
    "System",
    "VelaOperation",
    "Weights",
    "estimate",
]
