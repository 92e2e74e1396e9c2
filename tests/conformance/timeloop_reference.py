"""Cases of the Timeloop reference file as our types."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from dse.arch import Arch, Compute, MemoryLevel, SpatialAxis
from dse.mapping import AccessEnergy, Mapping, Problem, TemporalLevel, TensorAccess

CASES_FILE = Path(__file__).parents[2].parent / "shared" / "reference" / "mapper" / "timeloop_cases.json"
ROLES = {"Weights": "weight", "Inputs": "input", "Outputs": "output"}


def load_cases() -> list[dict[str, Any]]:
    """All cases; empty where the reference is absent."""
    if not CASES_FILE.is_file():
        return []
    cases: list[dict[str, Any]] = json.loads(CASES_FILE.read_text(encoding="utf-8"))["cases"]
    return cases


def problem_from(case: dict[str, Any]) -> Problem:
    """The problem, with the accesses of its shape; tensors are named as in the file."""
    given = case["problem"]
    dims = tuple(given["dims"])
    stride, dilation = given.get("stride", 1), given.get("dilation", 1)
    window = ([("P", stride), ("R", dilation)], [("Q", stride), ("S", dilation)])
    shapes: dict[str, tuple[list[Any], list[Any], list[Any]]] = {
        "gemm": ([["K"], ["N"]], [["M"], ["K"]], [["M"], ["N"]]),
        "conv2d": ([["K"], ["C"], ["R"], ["S"]], [["N"], ["C"], *window], [["N"], ["K"], ["P"], ["Q"]]),
        "depthwise_conv2d": ([["C"], ["R"], ["S"]], [["N"], ["C"], *window], [["N"], ["C"], ["P"], ["Q"]]),
        "conv1d_oc": ([["K"], ["R"]], [window[0]], [["K"], ["P"]]),
    }
    tensors = []
    for name, axes in zip(("Weights", "Inputs", "Outputs"), shapes[given["shape"]], strict=True):
        placed = tuple(
            tuple((dims.index(d), 1) if isinstance(d, str) else (dims.index(d[0]), d[1]) for d in axis) for axis in axes
        )
        tensors.append(TensorAccess(name, ROLES[name], placed))
    return Problem(case["id"], dims, tuple(given["dims"].values()), tuple(tensors))


def arch_from(case: dict[str, Any]) -> Arch:
    """The architecture: two axes below every level that fans out, multicast and reducing."""
    levels, axes = [], []
    instances = [level["instances"] for level in case["arch"]["levels"]]
    below = [*instances[1:], case["arch"]["compute"]["instances"]]
    meshes = [level.get("mesh_x", 1) for level in case["arch"]["levels"]]
    below_mesh = [*meshes[1:], case["arch"]["compute"].get("mesh_x", 1)]
    for k, level in enumerate(case["arch"]["levels"]):
        energy = level["energy_pJ"]
        assert energy["write"] == energy["update"]
        buffering = level.get("multiple_buffering", 1)
        levels.append(
            MemoryLevel(
                name=level["name"], instances=level["instances"], word_bits=level["word_bits"],
                capacity_bytes=level.get("depth_words"), double_buffered=buffering == 2,
                read_words_per_cycle=level.get("read_bandwidth"), write_words_per_cycle=level.get("write_bandwidth"),
                shared_words_per_cycle=level.get("shared_bandwidth"),
                read_energy_pj=energy["read"], write_energy_pj=energy["write"],
            )
        )  # fmt: skip
        if below[k] > instances[k]:
            columns = max(1, below_mesh[k] // meshes[k])
            rows = below[k] // instances[k] // columns
            for name, size in ((f"x{k}", columns), (f"y{k}", rows)):
                axes.append(
                    SpatialAxis(
                        name=name,
                        size=size,
                        below=level["name"],
                        multicast=frozenset({"input", "weight"}),
                        reduces=True,
                    )
                )
    compute = Compute(accumulator_bits=8, mac_energy_pj=case["arch"]["compute"]["energy_pJ"])
    return Arch(name=case["id"], clock_mhz=1000, levels=tuple(levels), axes=tuple(axes), compute=compute)


def mapping_from(case: dict[str, Any]) -> Mapping:
    """The mapping of the case."""
    temporal, spatial = [], {}
    for k, (level, part) in enumerate(zip(case["arch"]["levels"], case["mapping"], strict=True)):
        loops = tuple((dim, count) for dim, count in part.get("temporal", ()))
        temporal.append(TemporalLevel(level["name"], loops, frozenset(ROLES[t] for t in part.get("bypass", ()))))
        for key, axis in (("spatial_x", f"x{k}"), ("spatial_y", f"y{k}")):
            if part.get(key):
                spatial[axis] = tuple((dim, count) for dim, count in part[key])
    return Mapping(tuple(temporal), spatial)


def prices_of(case: dict[str, Any]) -> AccessEnergy:
    """pJ per access as the file gives them."""
    levels = [level["energy_pJ"] for level in case["arch"]["levels"]]
    return AccessEnergy(
        tuple(e["read"] for e in levels), tuple(e["write"] for e in levels), case["arch"]["compute"]["energy_pJ"]
    )
