"""What of a network does not depend on chip or mapping, made once: integers, spikes of a sample, and accuracy.

A search meets the same arithmetic under hundreds of meshes and mappings. Networks are kept by graph, widths and
decisions, a few at a time; worker processes keep their own.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from accelerators.neuromorphic.build import Precision, build_network
from accelerators.neuromorphic.convert import Conversion, Converted, convert
from accelerators.neuromorphic.hardware import NeuromorphicHardware
from accelerators.neuromorphic.simulate import (
    Activity,
    Compiled,
    compile_network,
    output_spikes,
    potentials_of,
    run_network,
)
from dse.backend import Samples
from dse.compiler import calibration_images, prepare, sqnr_db, strip_softmax
from dse.core.errors import UsageError
from dse.ir import Graph
from dse.ir.reference import run_float
from dse.ir.spiking import is_spiking, run_spiking

#: Synthetic samples that thresholds are taken from where a network comes without data.
CALIBRATION_SAMPLES = 64
#: Bytes of synapses of the networks that are kept, beside the newest.
_KEPT_BYTES = 256 << 20
#: Bounds of a signal-to-noise ratio in dB; no noise at all, or no signal, has no finite one.
_SQNR_BOUND = 300.0
#: Digits kept of a measured figure: below these, the order of a floating-point sum would show.
_DECIMALS = 6


@dataclass(frozen=True)
class Stimulus:
    """What drives a network nobody gave inputs for: Bernoulli spikes, seeded."""

    steps: int
    rate: float
    seed: int = 0

    def inputs(self, network: Any) -> dict[str, npt.NDArray[np.int32]]:
        """Spikes by input of a network, shape (steps, *shape)."""
        rng = np.random.default_rng(self.seed)
        return {
            item.name: (rng.random((self.steps, *item.shape)) < self.rate).astype(np.int32) for item in network.inputs
        }


@dataclass(frozen=True, eq=False)
class PreparedNetwork:
    """A network in integers with the spikes of one sample.

    Attributes
    ----------
    graph
        As it was given.
    compiled, converted
        Its integers; how activations became spikes, None for a network that is spiking already.
    samples
        The run's data, or None.
    sample, activity
        Events by input, and what follows from them.
    """

    graph: Graph
    compiled: Compiled
    converted: Converted | None
    samples: Samples | None
    sample: Mapping[str, npt.NDArray[Any]]
    activity: Activity
    _quality: dict[str, float] = field(default_factory=dict)

    def quality(self) -> Mapping[str, float]:
        """`sqnr_db` of the outputs against real numbers, and with labels `accuracy`; nothing outside of a run."""
        if self.samples is not None and not self._quality:
            found = _converted_quality(self) if self.converted is not None else _spiking_quality(self)
            self._quality.update({name: round(value, _DECIMALS) for name, value in found.items()})
        return self._quality


_networks: OrderedDict[tuple[Any, ...], PreparedNetwork] = OrderedDict()


def prepared_network(
    graph: Graph, hw: NeuromorphicHardware, chosen: Mapping[str, Any], samples: Samples | None
) -> PreparedNetwork:
    """The network for a design's widths and decisions (`family.DECISIONS`, all given).

    Raises
    ------
    ModelError: it cannot be converted or built. UsageError: direct coding without payloads.
    """
    precision = Precision(
        hw.weight_bits, hw.state_bits, hw.fraction_bits, hw.payload_bits, hw.decay, chosen["granularity"]
    )
    recipe: Conversion | Stimulus
    if is_spiking(graph):
        recipe = Stimulus(chosen["time_steps"], chosen["input_rate"], chosen["seed"])
    else:
        recipe = _conversion(hw, chosen)
    key = (id(graph), id(samples), precision, recipe)
    if key not in _networks:
        # graph and samples are held by the entry, so that their ids stay theirs
        _networks[key] = _made(graph, precision, recipe, samples)
        while len(_networks) > 1 and sum(item.compiled.synapse_bytes for item in _networks.values()) > _KEPT_BYTES:
            _networks.popitem(last=False)
    _networks.move_to_end(key)
    return _networks[key]


def _conversion(hw: NeuromorphicHardware, chosen: Mapping[str, Any]) -> Conversion:
    coding = chosen["coding"]
    if coding == "auto":
        coding = "direct" if hw.payload_bits else "rate"
    if coding == "direct" and not hw.payload_bits:
        raise UsageError("decisions.coding: 'direct' needs cores that take payloads (hardware.payload_bits=8)")
    return Conversion(chosen["time_steps"], chosen["normalization"], chosen["percentile"], coding, chosen["max_pool"],
                      bool(chosen["compensate"]))  # fmt: skip


def _made(
    graph: Graph, precision: Precision, recipe: Conversion | Stimulus, samples: Samples | None
) -> PreparedNetwork:
    if isinstance(recipe, Stimulus):
        compiled = compile_network(build_network(graph, precision))
        sample: Mapping[str, npt.NDArray[Any]] = recipe.inputs(compiled.network)
        return PreparedNetwork(graph, compiled, None, samples, sample, run_network(compiled, sample))
    converted = _converted(graph, recipe, samples)
    compiled = compile_network(build_network(converted.graph, precision, converted.input_scale(precision.payload_bits)))
    shown = _test_samples(graph, recipe.coding, samples)
    sample = {name: converted.encode(name, values[0], precision.payload_bits) for name, values in shown.items()}
    return PreparedNetwork(graph, compiled, converted, samples, sample, run_network(compiled, sample))


def _converted(graph: Graph, recipe: Conversion, samples: Samples | None) -> Converted:
    """The conversion, which widths do not change."""
    known = [item for item in _networks.values() if item.graph is graph and item.samples is samples]
    for item in known:
        if item.converted is not None and item.converted.conversion == recipe:
            return item.converted
    return convert(graph, recipe, _calibration(graph, recipe.coding, samples))


def _calibration(graph: Graph, coding: str, samples: Samples | None) -> Mapping[str, npt.NDArray[Any]]:
    """The run's calibration data, or synthetic samples; of those the magnitudes where values become rates."""
    if samples is not None and samples.calibration is not None:
        return samples.calibration
    count, seed = (CALIBRATION_SAMPLES, 0) if samples is None else (samples.images, samples.seed)
    return _magnitudes(calibration_images(graph, count, seed), coding)


def _test_samples(graph: Graph, coding: str, samples: Samples | None) -> Mapping[str, npt.NDArray[Any]]:
    """What accuracy, time and energy are measured on."""
    if samples is None:
        return _magnitudes(calibration_images(graph, CALIBRATION_SAMPLES), coding)
    if samples.test is not None:
        return samples.test
    return _magnitudes(calibration_images(graph, samples.images, samples.seed + 1), coding)


def _magnitudes(values: Mapping[str, npt.NDArray[Any]], coding: str) -> dict[str, npt.NDArray[Any]]:
    return {name: np.abs(array) if coding == "rate" else array for name, array in values.items()}


def shown_images(prepared: PreparedNetwork) -> Mapping[str, npt.NDArray[Any]]:
    """Real samples by input, (samples, *shape), of a converted network."""
    assert prepared.converted is not None
    return _test_samples(prepared.graph, prepared.converted.conversion.coding, prepared.samples)


def _converted_quality(prepared: PreparedNetwork) -> dict[str, float]:
    converted, compiled, samples = prepared.converted, prepared.compiled, prepared.samples
    assert converted is not None
    assert samples is not None
    network, images = compiled.network, shown_images(prepared)
    count = len(next(iter(images.values())))
    outputs: dict[str, list[npt.NDArray[Any]]] = {name: [] for name, _, _ in network.outputs}
    for index in range(count):
        events = {name: converted.encode(name, values[index], network.payload_bits) for name, values in images.items()}
        activity = run_network(compiled, events)
        for name, found in outputs.items():
            found.append(potentials_of(network, activity, name)[-1] / converted.conversion.steps)
    real = run_float(strip_softmax(prepare(prepared.graph)), images)
    wanted = np.concatenate([real[name.removesuffix(".potential")].reshape(count, -1) for name in outputs], axis=1)
    got = np.concatenate([np.stack(values).reshape(count, -1) for values in outputs.values()], axis=1)
    quality = {"sqnr_db": _bounded(sqnr_db(wanted, got))}
    if samples.labels is not None and len(outputs) == 1:
        quality["accuracy"] = float((got.argmax(axis=1) == samples.labels).mean())
    return quality


def _spiking_quality(prepared: PreparedNetwork) -> dict[str, float]:
    """Spikes and potentials of the stimulus against the same network in real numbers."""
    network, activity, graph = prepared.compiled.network, prepared.activity, prepared.graph
    steps = max(len(values) for values in prepared.sample.values())
    drive = {name: np.asarray(values, np.float32)[:, None] for name, values in prepared.sample.items()}
    real = run_spiking(graph, drive)
    wanted, got = [], []
    for name, index, lag in network.outputs:
        spiking = network.populations[index].spiking
        whole = (output_spikes if spiking else potentials_of)(network, activity, name)
        got.append(np.asarray(whole[lag : lag + steps], np.float64).reshape(-1))
        wanted.append(np.asarray(real[name], np.float64).reshape(-1))
    return {"sqnr_db": _bounded(sqnr_db(np.concatenate(wanted), np.concatenate(got)))}


def _bounded(value: float) -> float:
    return min(max(value, -_SQNR_BOUND), _SQNR_BOUND)
