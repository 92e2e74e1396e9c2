"""Mappings of loop nests onto a memory hierarchy: their cost, and the best of them."""

from dse.mapping.cost import CountMode, MappingCost, TensorTraffic, evaluate
from dse.mapping.energy import AccessEnergy, access_energy
from dse.mapping.lookup import Answer, MappingTable
from dse.mapping.mapper import Solution, best_mapping, pareto_mappings
from dse.mapping.mapping import Mapping, TemporalLevel
from dse.mapping.problem import Problem, TensorAccess, problem_of
from dse.mapping.spatial import Constraints

__all__ = [
    "AccessEnergy",
    "Answer",
    "Constraints",
    "CountMode",
    "Mapping",
    "MappingCost",
    "MappingTable",
    "Problem",
    "Solution",
    "TemporalLevel",
    "TensorAccess",
    "TensorTraffic",
    "access_energy",
    "best_mapping",
    "evaluate",
    "pareto_mappings",
    "problem_of",
]
