"""`dse run`: load, quantize, search, confirm, emit, verify, report.

Every stage is a function of the configuration: the folder's `trials.jsonl` only saves evaluations from being done
twice. So any number of workers, and any number of kills and resumes, lead to the same `pareto.json`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from dse.config.loader import LoadedConfig
from dse.core.progress import Reporter
from dse.flow.document import counts, pareto_document, pareto_rows, report_document
from dse.flow.finish import FinishedWinner, VerificationError, finish_winners
from dse.flow.folder import RunFolder, open_run_folder
from dse.flow.identity import run_identity
from dse.flow.stages import Prepared, prepare_run, quantize_all, require_feasible
from dse.flow.trial_log import TrialLog
from dse.report import pareto_table, write_report
from dse.search import SearchOutcome, Trial, Winner, choose_winners, evaluation_map, pareto_trials, search
from dse.search.space import HARDWARE


@dataclass(frozen=True)
class RunResult:
    """What a run came to.

    Parameters
    ----------
    folder
        The run folder.
    simulated, feasible
        Distinct designs that were compiled and estimated, and those of them that keep every limit.
    pareto
        Feasible trials that no other one beats in every objective, in trial order.
    winners
        Chosen from them, finished.
    """

    folder: Path
    simulated: int
    feasible: int
    pareto: tuple[Trial, ...]
    winners: tuple[FinishedWinner, ...]


def run(loaded: LoadedConfig, *, out: Path, resume: bool, jobs: int, seed: int | None, reporter: Reporter) -> RunResult:
    """Carry out a configuration.

    Parameters
    ----------
    out
        Run folder (see `dse.flow.folder`).
    resume
        Go on with the run in `out`.
    jobs
        Worker processes; changes how long it takes and nothing else.
    seed
        Replaces the configuration's `search.seed`.

    Raises
    ------
    NothingFeasibleError: no design keeps every limit (the trials stay in the folder).
    RunFolderError: `out` cannot be used.
    VerificationError: emitted hardware differs from what was predicted.
    """
    reporter.stage("load")
    prepared = prepare_run(loaded, seed)
    identity = run_identity(prepared.config, prepared.graph, prepared.data_digests)
    with open_run_folder(out, identity, resume=resume) as folder:
        _greet(folder, resume, reporter)
        quantize_all(prepared, reporter)
        outcome = _search(prepared, folder, jobs, reporter)
        front = pareto_trials(outcome.trials, prepared.plan.objectives)
        winners = _choose(prepared, front)
        _write_pareto(prepared, folder, outcome, front, winners)
        require_feasible(outcome.trials)
        _show_pareto(prepared, outcome, front, winners, reporter)
        finished = _finish(prepared, folder, winners, jobs, reporter)
        reporter.stage("report")
        document = report_document(prepared, outcome, front, winners, finished)
        folder.write_json("winners.json", document["winners"])
        report = write_report(document, folder.path, folder.write_text)
        reporter.close()
        reporter.message(f"report: {report}")
    failed = [f"{item.name}: {', '.join(item.failed)}" for item in finished if item.failed]
    if failed:
        raise VerificationError(f"hardware differs from reference or prediction: {'; '.join(failed)}; see {report}")
    feasible = sum(trial.evaluation.feasible for trial in outcome.trials)
    return RunResult(folder.path, outcome.simulated, feasible, tuple(front), finished)


def _greet(folder: RunFolder, resume: bool, reporter: Reporter) -> None:
    if folder.interrupted and folder.resumed:
        reporter.message(f"{folder.path}: {folder.interrupted} was cut off here; going on where it ended")
    elif resume and not folder.resumed:
        reporter.message(f"{folder.path}: nothing to resume, starting from the beginning")


def _search(prepared: Prepared, folder: RunFolder, jobs: int, reporter: Reporter) -> SearchOutcome:
    plan = prepared.plan
    with TrialLog.open(folder.trials) as log:
        if log.torn_bytes:
            reporter.message(f"{log.path}: cut off {log.torn_bytes} bytes of a torn last line")
        if log.known:
            reporter.message(f"{log.path}: {len(log.known)} designs are known already")
        reporter.stage("search", min(plan.trials, prepared.space.size))
        tally = {"ok": 0, "infeasible": 0, "rejected": 0}

        def on_batch(batch: Sequence[Trial]) -> None:
            log.record(batch)
            for trial in batch:
                tally[trial.evaluation.status] += 1
            steps = sum(trial.evaluation.status != "rejected" for trial in batch)
            reporter.advance(steps, f"{tally['ok']} feasible, {tally['rejected']} rejected unseen")

        with evaluation_map(prepared.evaluator, jobs) as evaluate:
            return search(
                prepared.space, prepared.evaluator, plan, evaluate=evaluate, known=log.known, on_batch=on_batch
            )


def _choose(prepared: Prepared, front: Sequence[Trial]) -> list[Winner]:
    """Winners cover the configured parameters, or by default every unordered one, such as the dataflow."""
    emit = prepared.config.emit
    named = [name if "." in name else f"hardware.{name}" for name in emit.cover]
    unordered = [knob.name for knob in prepared.space.knobs if not knob.ordered and knob.name.startswith(HARDWARE)]
    return choose_winners(front, prepared.plan.objectives, emit.winners, named or unordered)


def _write_pareto(
    prepared: Prepared, folder: RunFolder, outcome: SearchOutcome, front: Sequence[Trial], winners: Sequence[Winner]
) -> None:
    folder.write_json("pareto.json", pareto_document(prepared, outcome, front, winners))
    folder.write_csv("pareto.csv", *pareto_rows(prepared, front))


def _show_pareto(
    prepared: Prepared, outcome: SearchOutcome, front: Sequence[Trial], winners: Sequence[Winner], reporter: Reporter
) -> None:
    reporter.close()
    title, columns, rows = pareto_table(front, winners, prepared.plan.objectives, prepared.space.knobs)
    reporter.table(title, columns, rows)
    found = counts(outcome)
    reporter.message(
        f"{found['simulated']} distinct designs simulated, {found['feasible']} feasible; "
        f"{found['rejected']} more rejected by analytic limits, {found['repeats']} repeats"
    )


def _finish(
    prepared: Prepared, folder: RunFolder, winners: Sequence[Winner], jobs: int, reporter: Reporter
) -> tuple[FinishedWinner, ...]:
    reporter.stage("confirm, emit and verify", len(winners))
    finished = []
    for item in finish_winners(
        winners,
        prepared.evaluator,
        folder.path / "rtl",
        verify=prepared.config.emit.verify,
        # an image that neither calibrated the network nor measured its accuracy
        image_seed=prepared.config.workload.calibration.seed + 2,
        jobs=jobs,
    ):
        for line in item.lines:
            reporter.message(line)
        reporter.advance()
        finished.append(item)
    return tuple(finished)
