"""Synaptic events a second of the functional simulation, one thread: `python benchmarks/neuromorphic.py`.

Two networks of 3 million synapses and more: a random one in sparse rows, and a convolutional one with shared kernels.
"""

from __future__ import annotations

import resource
import sys
import time

import numpy as np
import numpy.typing as npt

from accelerators.neuromorphic.linear import ConvLayer
from accelerators.neuromorphic.network import Csr, Input, Network, Population, Projection
from accelerators.neuromorphic.semantics import KEEP_ALL
from accelerators.neuromorphic.simulate import compile_network, run_network


def population(name: str, shape: tuple[int, ...], first: int, threshold: int, lag: int) -> Population:
    """Integrate-and-fire neurons with soft reset."""
    size = int(np.prod(shape))

    def full(value: int) -> npt.NDArray[np.int64]:
        return np.full(size, value, np.int64)

    return Population(name, shape, first, full(threshold), full(threshold), full(0), full(0), full(0), full(KEEP_ALL),
                      True, 0, True, lag, np.ones(size))  # fmt: skip


def random_network(neurons: int = 20_000, fan_out: int = 160) -> Network:
    """A recurrent network of `neurons` x `fan_out` random synapses, driven one to one from outside."""
    rng = np.random.default_rng(0)
    targets = np.sort(rng.integers(0, neurons, (neurons, fan_out)), axis=1).astype(np.int32).reshape(-1)
    weights = rng.integers(-100, 100, targets.size).astype(np.int16)
    recurrent = Csr(np.arange(neurons + 1, dtype=np.int64) * fan_out, targets, weights)
    drive = Csr(np.arange(neurons + 1, dtype=np.int64), np.arange(neurons, dtype=np.int32),
                np.full(neurons, 255, np.int16))  # fmt: skip
    net = population("net", (neurons,), 0, 250, 0)
    links = (Projection(0, 0, 0, drive), Projection(1, 0, 1, recurrent))
    return Network("random", (Input("x", (neurons,), 0),), (net,), links, (("net", 0, 0),), 9, 24, 0)


def conv_network() -> Network:
    """Three 5 x 5 and 3 x 3 convolutions over 2 x 64 x 64 events."""
    rng = np.random.default_rng(0)
    shapes = [(2, 64, 64), (16, 32, 32), (32, 32, 32), (32, 16, 16)]
    kernels = [(5, 2, 2), (3, 1, 1), (3, 2, 1)]
    populations, links, first = [], [], 0
    for index, (kernel, stride, pad) in enumerate(kernels):
        inside, outside = shapes[index], shapes[index + 1]
        weight = rng.integers(-40, 60, (outside[0], inside[0], kernel, kernel)).astype(np.int16)
        layer = ConvLayer(weight, inside, outside, (stride, stride), (pad,) * 4, (1, 1), 1)  # type: ignore[arg-type]
        populations.append(population(f"conv{index}", outside, first, 400, index))
        links.append(Projection(index, index, 1 if index else 0, layer))
        first += populations[-1].size
    return Network("conv", (Input("x", shapes[0], 0),), tuple(populations), tuple(links), (("conv2", 2, 2),), 8, 24, 0)


def measure(network: Network, steps: int, rate: float) -> str:
    """One line: events, processor seconds, events a second, bytes a synapse."""
    compiled = compile_network(network)
    source = network.inputs[0]
    drive = (np.random.default_rng(1).random((steps, *source.shape)) < rate).astype(np.int32)
    run_network(compiled, {source.name: drive[:2]})
    begin = time.process_time()
    activity = run_network(compiled, {source.name: drive})
    spent = time.process_time() - begin
    resident = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return (
        f"{network.name}: {network.neurons:,} neurons, {network.synapses:,} synapses, {activity.steps} steps: "
        f"{activity.synaptic_events:,} synaptic events in {spent:.2f} s = "
        f"{activity.synaptic_events / spent / 1e6:.0f} M/s; "
        f"{compiled.synapse_bytes / network.synapses:.2f} bytes a synapse; {resident:.0f} MiB resident"
    )


def main() -> None:
    """Print both measurements."""
    sys.stdout.write(measure(random_network(), 100, 0.05) + "\n")
    sys.stdout.write(measure(conv_network(), 60, 0.05) + "\n")


if __name__ == "__main__":
    main()
