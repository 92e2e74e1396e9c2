"""What a program consists of, step by step: work items, with what each reads and writes in memory."""

from __future__ import annotations

from dataclasses import dataclass

from accelerators.systolic.attention import VectorLayer
from accelerators.systolic.fusion import FusedGroup, GroupPlan
from accelerators.systolic.layer import Layer
from accelerators.systolic.maps import MapLayer
from accelerators.systolic.partition import HostOp
from accelerators.systolic.recurrent import RecurrentLayer


@dataclass(frozen=True)
class Price:
    """Cycles from start to done, and bytes over the memory port."""

    cycles: int
    bytes: int


@dataclass(frozen=True)
class Fused:
    """A group with the plan that was chosen for it."""

    group: FusedGroup
    plan: GroupPlan
    price: Price

    @property
    def name(self) -> str:
        return self.group.name

    @property
    def output(self) -> str:
        return self.group.output


Work = Layer | RecurrentLayer | VectorLayer | MapLayer | HostOp | Fused


def reads_of(item: Work) -> tuple[str, ...]:
    """Tensors in memory that a work item reads."""
    if isinstance(item, HostOp):
        return item.reads
    if isinstance(item, RecurrentLayer):
        return (item.input,)
    if isinstance(item, VectorLayer | MapLayer):
        return item.inputs
    source = item.group if isinstance(item, Fused) else item
    return (source.input, source.residual) if source.residual else (source.input,)


def writes_of(item: Work) -> tuple[str, ...]:
    """Tensors in memory that a work item writes."""
    return item.outputs if isinstance(item, RecurrentLayer) else (item.output,)
