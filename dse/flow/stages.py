"""The first stages of a run: from a configuration to a search that can start."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from dse.backend import Accelerator, Samples
from dse.compiler import Recipe, prepare
from dse.config.expression import Constraint
from dse.config.loader import LoadedConfig
from dse.config.models import RunConfig, SearchConfig
from dse.config.validation import at
from dse.core.errors import EXIT_INFEASIBLE, DseError, InfeasibleError
from dse.core.progress import Reporter
from dse.flow.accelerator import Design, design_of
from dse.flow.dataset import Dataset, DatasetError, load_dataset
from dse.flow.technology import with_technology
from dse.flow.workload import load_workload
from dse.ir import Graph
from dse.search import Evaluator, FloatNetworks, QuantizedNetworks, SearchPlan, SearchSpace, Trial, build_space
from dse.search.evaluate import parse_constraints
from dse.search.networks import reachable_numerics

#: Limits named when nothing is feasible.
_LIMITS_SHOWN = 4


class NothingFeasibleError(DseError):
    """A search found no design that keeps every limit."""

    exit_code = EXIT_INFEASIBLE


@dataclass(frozen=True)
class Prepared:
    """A run that can start: configuration with its seed, the float network, the design it starts from.

    `data_digests` names the data sets that were read, with a digest of their contents.
    """

    config: RunConfig
    graph: Graph
    design: Design
    evaluator: Evaluator
    plan: SearchPlan
    data_digests: Mapping[str, str] = field(default_factory=dict)

    @property
    def space(self) -> SearchSpace:
        return self.evaluator.space


def prepare_run(loaded: LoadedConfig, seed: int | None) -> Prepared:
    """Read the network, check the design and its space.

    Parameters
    ----------
    seed
        Replaces `search.seed`.

    Raises
    ------
    ConfigError, UsageError, ModelError: the configuration or the network is wrong.
    """
    config = loaded.config
    if seed is not None and config.search is not None:
        config = config.model_copy(update={"search": config.search.model_copy(update={"seed": seed})})
    design = design_of(with_technology(config.accelerator, config.tech, loaded.marks), loaded.marks)
    settings = config.search
    # without a search, the design itself is the only point of the space
    plan = _plan(settings or SearchConfig(trials=1, batch=1))
    space = build_space(
        design.family,
        hardware=design.hw.model_dump(),
        decisions=design.decisions.values,
        choices=None if settings is None else {name: settings.choices(name) for name in settings.space},
        marks=loaded.marks,
    )
    constraints = parse_constraints(design.family, settings.constraints if settings else (), loaded.marks)
    graph = prepare(load_workload(config.workload.model, loaded.model_folder, config.workload.dims))
    networks, digests = _networks(loaded, config, graph)
    if networks.labels is None:
        _refuse_accuracy(loaded, plan, constraints)
    family, made = _own_arithmetic(design.family, networks) if design.family.own_arithmetic else (None, None)
    evaluator = Evaluator(family or design.family, space, made or networks, constraints)
    return Prepared(config, graph, design, evaluator, plan, digests)


def _own_arithmetic(family: Accelerator, networks: QuantizedNetworks) -> tuple[Accelerator, FloatNetworks]:
    """A family that makes its own integers, with the run's data, and the network it makes them of."""
    samples = Samples(networks.images, networks.seed, networks.calibration, networks.test, networks.labels)
    return family.with_samples(samples), FloatNetworks(networks.graph)


def _networks(loaded: LoadedConfig, config: RunConfig, graph: Graph) -> tuple[QuantizedNetworks, dict[str, str]]:
    """What quantizes the network as the configuration says, and the digests of the data sets that it reads."""
    workload = config.workload
    calibration = workload.calibration
    given = {"calibration": calibration.file, "dataset": workload.dataset}
    data: dict[str, Dataset] = {}
    for name, spec in given.items():
        if spec is not None:
            key = ("workload", "dataset") if name == "dataset" else ("workload", "calibration", "file")
            try:
                data[name] = load_dataset(loaded.model_folder / spec, graph)
            except DatasetError as error:
                raise at(key, loaded.marks, str(error)) from error
    samples, test = data.get("calibration"), data.get("dataset")
    networks = QuantizedNetworks(
        graph,
        calibration.images,
        calibration.seed,
        Recipe(calibration.method, calibration.percentile),
        None if samples is None else samples.inputs,
        None if test is None else test.inputs,
        None if test is None else test.labels,
    )
    return networks, {name: item.digest() for name, item in data.items()}


def _refuse_accuracy(loaded: LoadedConfig, plan: SearchPlan, constraints: Sequence[Constraint]) -> None:
    """Nothing unless the search reads accuracy, for which there are no labels.

    Raises
    ------
    ConfigError: it does.
    """
    message = "accuracy needs a data set with labels y: workload.dataset; sqnr_db needs none"
    if "accuracy" in plan.objectives:
        raise at(("search", "objectives", plan.objectives.index("accuracy")), loaded.marks, message)
    for index, constraint in enumerate(constraints):
        if "accuracy" in constraint.names:
            raise at(("search", "constraints", index), loaded.marks, f"{constraint.text!r}: {message}")


def quantize_all(prepared: Prepared, reporter: Reporter) -> None:
    """Quantize the network for every arithmetic the space reaches, so that workers inherit it."""
    if prepared.design.family.own_arithmetic:
        return  # it makes each arithmetic when a design first asks for it
    needed = reachable_numerics(prepared.design.family, prepared.space)
    reporter.stage("calibrate and quantize", len(needed))
    for numerics in needed:
        try:
            network = prepared.evaluator.networks.get(numerics)
        except InfeasibleError as error:
            # a network that came quantized does not fit every arithmetic: such designs end as infeasible trials
            reporter.message(str(error))
            reporter.advance()
            continue
        figures = ", ".join(f"{name} {value:.4g}" for name, value in sorted(network.accuracy.items()))
        reporter.message(f"weights of {numerics.weight_bits} bit, {numerics.requantize}: {figures}")
        reporter.advance()


def require_feasible(trials: Sequence[Trial]) -> None:
    """Nothing when some trial is feasible.

    Raises
    ------
    NothingFeasibleError: none is; says which limits were broken most often and by how much at the closest.
    """
    if any(trial.evaluation.feasible for trial in trials):
        return
    excesses: dict[str, list[float]] = {}
    for trial in trials:
        for name, excess in trial.evaluation.violations.items():
            excesses.setdefault(name, []).append(excess)
    ranked = sorted(excesses, key=lambda name: (-len(excesses[name]), name))
    parts = [
        f"{name!r} was broken by {len(excesses[name])}, at the closest by {100 * min(excesses[name]):.3g} %"
        for name in ranked[:_LIMITS_SHOWN]
    ]
    raise NothingFeasibleError(f"none of {len(trials)} designs keeps every limit: {'; '.join(parts)}")


def _plan(settings: SearchConfig) -> SearchPlan:
    return SearchPlan(tuple(settings.objectives), settings.trials, settings.batch, settings.sampler, settings.seed)
