"""What the mapping search gains: `python benchmarks/neuromorphic_mapping.py`.

A convolutional spiking network of the layer shapes of a published DVS-gesture classifier (18,678 neurons with its input
layer; random weights, thresholds that make about 2 % of the neurons fire), on Loihi with calibrated prices and on our
own core. Energy-delay products are those of the full cost model, message queues included.
"""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import numpy as np

from accelerators.neuromorphic import NeuromorphicAccelerator
from accelerators.neuromorphic.blocks import BlockPlan
from accelerators.neuromorphic.build import Precision, build_network
from accelerators.neuromorphic.hardware import NeuromorphicHardware
from accelerators.neuromorphic.mapper import edp_of, judge, search_mapping
from accelerators.neuromorphic.mapping import fitting_plan
from accelerators.neuromorphic.placement import place_plan
from accelerators.neuromorphic.prepared import Stimulus
from accelerators.neuromorphic.prices import static_mw
from accelerators.neuromorphic.recost import Recoster
from accelerators.neuromorphic.simulate import compile_network, run_network
from dse.backend import Decisions
from dse.ir import Graph, Op, Tensor
from dse.search import Evaluator, FloatNetworks, SearchPlan, build_space, search
from dse.search.evaluate import parse_constraints

STEPS = 40
MOVES = 400
#: Cores of each layer in the tutorial mapping of that classifier on Loihi (SANA-FE; its input layer takes one more).
BY_HAND = (4, 16, 16, 4, 1)

#: What the joint search leaves alone, and what it turns.
FIXED = {"prices": "model", "clock_mhz": 150, "max_delay": 1, "charge_bits": 24, "fan_out": 1024, "profiles": 256}
SPACE: dict[str, list[Any]] = {
    "hardware.mesh_columns": [4, 6, 8, 10, 12], "hardware.mesh_rows": [4, 6, 8, 10, 12],
    "hardware.neurons_per_core": [128, 192, 256, 384, 512, 1024],
    "hardware.synapse_kib": [48, 64, 96, 128, 192, 256, 384], "hardware.axons_in": [2048, 4096, 8192],
    "hardware.axons_out": [4096, 8192, 16384, 32768], "hardware.lanes": [1, 2, 4, 8],
    "hardware.link_buffer": [4, 8, 16],
    "decisions.slice_order": ["channel", "spatial", "round_robin"], "decisions.spread": [1.0, 1.5, 2.0, 3.0, 4.0],
    "decisions.placement": ["order", "hilbert", "traffic"], "decisions.mapping_moves": [0, 60],
}  # fmt: skip


def conv_graph(side: int = 32, channels: tuple[int, ...] = (16, 32, 64, 11), classes: int = 11) -> Graph:
    """Four convolutions and a dense layer of leaky neurons over side x side events."""
    rng = np.random.default_rng(0)
    tensors = {"x": Tensor("x", (1, 1, side, side))}
    ops: list[Op] = []
    source, inside, size = "x", 1, side
    for index, outside in enumerate(channels):
        kernel, stride = ((4, 2), (3, 1), (3, 1), (3, 1))[index]
        size = (size - kernel) // stride + 1
        weight = rng.normal(0.12, 1.0, (outside, inside, kernel, kernel)) / math.sqrt(inside * kernel * kernel)
        attributes = {"strides": (stride, stride), "pads": (0, 0, 0, 0), "dilations": (1, 1), "groups": 1,
                      "activation": "none"}  # fmt: skip
        _layer(tensors, ops, f"conv{index + 1}", "conv", source, weight, (1, outside, size, size), attributes)
        source, inside = f"conv{index + 1}.spikes", outside
    flat = inside * size * size
    tensors["flat"] = Tensor("flat", (1, flat))
    ops.append(Op("flat", "flatten", (source,), ("flat",), {"axis": 1}))
    weight = rng.normal(0.05, 1.0, (classes, flat)) / math.sqrt(flat)
    _layer(tensors, ops, "dense", "gemm", "flat", weight, (1, classes), {"activation": "none"})
    return Graph("gesture", tensors, tuple(ops), ("x",), ("dense.spikes",))


def _layer(
    tensors: dict[str, Tensor], ops: list[Op], name: str, kind: str, source: str, weight: np.ndarray,
    shape: tuple[int, ...], attributes: dict[str, object],
) -> None:  # fmt: skip
    tensors[f"{name}.w"] = Tensor(f"{name}.w", weight.shape, data=weight.astype(np.float32))
    tensors[name], tensors[f"{name}.spikes"] = Tensor(name, shape), Tensor(f"{name}.spikes", shape)
    ops.append(Op(name, kind, (source, f"{name}.w"), (name,), attributes))
    names = []
    for key, value in (("keep", 0.9), ("gain", 1.0), ("offset", 0.0), ("threshold", 0.93), ("reset", 0.0)):
        names.append(f"{name}.{key}")
        tensors[names[-1]] = Tensor(names[-1], shape[1:], data=np.full(shape[1:], value, np.float32))
    ops.append(Op(f"{name}.lif", "neuron", (name, *names), (f"{name}.spikes",), {}))


def fixed_chip(hw: NeuromorphicHardware, name: str, hand: tuple[int, ...] | None) -> None:
    """Print what a mapping-only search gains on one chip."""
    graph = conv_graph()
    compiled = compile_network(build_network(graph, Precision(weight_bits=hw.weight_bits)))
    network = compiled.network
    activity = run_network(compiled, Stimulus(STEPS, 0.06).inputs(network))
    share = len(activity.spikes) / network.neurons / activity.steps
    sys.stdout.write(
        f"{name}: {network.neurons:,} neurons, {network.synapses:,} synapses, {activity.steps} steps, "
        f"{100 * share:.2f} % of the neurons fire a step, {activity.synaptic_events:,} synaptic events\n"
    )
    recoster = Recoster(compiled, activity, hw)
    leakage = sum(static_mw(hw).values())
    start = fitting_plan(network, compiled, hw)
    rows: list[tuple[str, BlockPlan]] = [("layer blocks, fewest cores", start)]
    if hand is not None:
        rows.append(("layer blocks, by hand", BlockPlan(hand, ("channel",) * len(hand))))
    rows.append(("layer blocks, all cores", fitting_plan(network, compiled, hw, "channel", 8.0)))
    edps = {}
    for label, plan in rows:
        cost = judge(recoster, plan)
        edps[label] = edp_of(cost, leakage)
        _row(label, plan, cost.total_fj, cost.total_ps, activity.steps, edps[label])
    begin = time.process_time()
    found = search_mapping(recoster, start, MOVES, placement="best")
    spent = time.process_time() - begin
    cost = judge(recoster, found.plan)
    _row("search", found.plan, cost.total_fj, cost.total_ps, activity.steps, found.edp)
    gains = ", ".join(f"{edp / found.edp:.2f}x over {label}" for label, edp in edps.items())
    sys.stdout.write(f"  {gains}\n  {found.priced} plans priced, {found.judged} judged in {spent:.1f} s\n")
    for placement in ("order", "row_major", "spread", "hilbert", "traffic"):
        cost = judge(recoster, place_plan(found.plan, placement, recoster))
        hops = cost.counts["hop_east_west"] + cost.counts["hop_north_south"]
        sys.stdout.write(f"  placed by {placement}: {hops:,} hops, EDP {edp_of(cost, leakage):.4g} J s\n")


def _row(label: str, plan: BlockPlan, energy_fj: int, time_ps: int, steps: int, edp: float) -> None:
    sys.stdout.write(
        f"  {label:28s} cores {'/'.join(map(str, plan.slices)):16s} {energy_fj * 1e-9 / steps:8.4f} uJ/step "
        f"{time_ps * 1e-6 / steps:8.3f} us/step  EDP {edp:.4g} J s\n"
    )


def joint(trials: int) -> None:
    """Print what hardware and mapping together gain over a fixed chip with layer blocks, at no more area.

    The search is the one of `dse run`: Optuna proposes, latency and energy are minimised, area is a constraint. Weights
    keep their bits, so that every design computes the same spikes.
    """
    family, graph = NeuromorphicAccelerator(), conv_graph()
    fixed = {**FIXED, "mesh_columns": 8, "mesh_rows": 8, "neurons_per_core": 512, "synapse_kib": 256, "lanes": 4,
             "axons_in": 8192, "axons_out": 16384, "link_buffer": 16}  # fmt: skip
    decisions = {**family.decision_defaults(), "time_steps": STEPS, "input_rate": 0.06}
    area = family.cost(NeuromorphicHardware(**fixed)).area_mm2
    space = build_space(family, hardware=fixed, decisions=decisions, choices=SPACE, marks={})
    constraints = parse_constraints(family, [f"area_mm2 <= {area}"], {})
    evaluator = Evaluator(family, space, FloatNetworks(graph), constraints)
    base = _edp(family, graph, fixed, decisions)
    blocks = min(
        _edp(family, graph, fixed, {**decisions, "spread": spread, "slice_order": order})
        for spread in (1.0, 2.0, 4.0) for order in ("channel", "spatial")
    )  # fmt: skip
    mapped = _edp(family, graph, fixed, {**decisions, "mapping_moves": MOVES, "placement": "traffic"})
    plan = SearchPlan(("latency_ms", "energy_uj"), trials, 20, seed=0)
    begin = time.process_time()
    outcome = search(space, evaluator, plan, evaluate=lambda points: map(evaluator.evaluate, points), known={},
                     on_batch=lambda batch: None)  # fmt: skip
    feasible = [trial.evaluation for trial in outcome.trials if trial.evaluation.feasible]
    best = min(feasible, key=lambda item: item.summary["latency_ms"] * item.summary["energy_uj"])
    found = best.summary["latency_ms"] * best.summary["energy_uj"]
    sys.stdout.write(
        f"our core, at most {area:.1f} mm2: EDP in uJ ms\n"
        f"  fixed chip, layer blocks       {base:.5f}\n  fixed chip, best of six blocks {blocks:.5f}\n"
        f"  fixed chip, mapping searched   {mapped:.5f}  ({base / mapped:.2f}x, {blocks / mapped:.2f}x)\n"
        f"  joint search                   {found:.5f}  ({base / found:.2f}x, {blocks / found:.2f}x) at "
        f"{best.summary['area_mm2']:.1f} mm2\n"
        f"  {outcome.simulated} designs, {len(feasible)} feasible, {time.process_time() - begin:.0f} s\n"
    )
    for name, value in sorted(best.values.items()):
        sys.stdout.write(f"    {name}: {value}\n")


def _edp(family: NeuromorphicAccelerator, graph: Graph, hardware: dict[str, Any], decisions: dict[str, Any]) -> float:
    metrics = family.lower(graph, NeuromorphicHardware(**hardware), Decisions(decisions)).estimate()
    sys.stdout.write(f"  {metrics.layers[0].mapping}\n")
    return metrics.latency_ms * metrics.energy_uj


def main() -> None:
    """Print all measurements, or with `joint N` the joint search of N designs alone."""
    if len(sys.argv) > 2 and sys.argv[1] == "joint":
        joint(int(sys.argv[2]))
        return
    family = NeuromorphicAccelerator()
    # the tutorial knows no limits of axon tables
    wide = {"axons_in": 16384, "axons_out": 65536}
    fixed_chip(NeuromorphicHardware(**family.presets()["loihi"] | wide), "loihi", BY_HAND)


if __name__ == "__main__":
    main()
