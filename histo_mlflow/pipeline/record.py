"""A split that is fitted and kept: metrics, checkpoints and numbers go to its run while and after it learns; draws nothing."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import numpy as np
from torch.nn import Module

from histo_mlflow.base.scratch import scratch_folder
from histo_mlflow.console import describe_epoch, say
from histo_mlflow.errors import RequestError, WorkError
from histo_mlflow.evaluation.findings import About, Details, Findings
from histo_mlflow.evaluation.metrics import Evaluation
from histo_mlflow.evaluation.predictions import Predictions
from histo_mlflow.evaluation.verdict import verdict_of
from histo_mlflow.learning.reports import EpochReport, FitResult
from histo_mlflow.models.checkpoint import epoch_file_name, load_state, load_weights, save_state, save_weights
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.models.facts import ModelFacts
from histo_mlflow.options import flatten
from histo_mlflow.pipeline.contents import log_datasets
from histo_mlflow.pipeline.description import (
    Description,
    describe_figures,
    glance_so_far,
    report_links,
    show_at_a_glance,
)
from histo_mlflow.pipeline.kept_split import keep_split, kept_rows
from histo_mlflow.pipeline.names import figure_of
from histo_mlflow.pipeline.report import (
    calibrate,
    calibration_of,
    find_leaks,
    judge_by_colour,
    predictions_of,
    record_baselines,
    record_findings,
)
from histo_mlflow.pipeline.session import Session
from histo_mlflow.pipeline.split import SplitResult, epoch_metrics, run_split
from histo_mlflow.tiles.splits import Split
from histo_mlflow.tracking.about import note
from histo_mlflow.tracking.found_runs import count_looks, note_looks
from histo_mlflow.tracking.kept_checkpoints import BEST, FOLDER, LAST, keep_weights, load_last_state
from histo_mlflow.tracking.runs import Run


@dataclass(frozen=True, eq=False)
class RecordedSplit:
    """A fitted split with what was found out about it; its network lies in its run.

    Attributes:
        run: Where it is kept.
        split: Its tiles.
        title: ``hold-out``, or which fold.
        facts: What travels with its network.
        best: The chosen epoch, its validation loss as training saw it, and what it was trained on.
        val_loss: Of the chosen epoch, in full precision.
        findings: What was found out on each scored set, by name.
        baselines: What classifiers that see only colour say of its validation tiles, by name.
        history: The public metrics of each epoch.
    """

    run: Run
    split: Split
    title: str
    facts: ModelFacts
    best: FitResult
    val_loss: float
    findings: Mapping[str, Findings]
    baselines: Mapping[str, Predictions]
    history: Mapping[str, Sequence[float]]

    @property
    def val(self) -> Evaluation:
        """Its evaluation on the tiles that selected it."""
        return self.findings["val"].evaluation

    @property
    def test(self) -> Evaluation | None:
        """Its evaluation on the test set that was watched, if there was one."""
        return self.findings["test"].evaluation if "test" in self.findings else None

    @property
    def judged(self) -> Findings:
        """What it is judged by: what was found out on the test set, if there was one, else on the validation tiles."""
        return self.findings.get("test", self.findings["val"])

    def describe(self) -> str:
        """Return the verdict, what was selected, and the headline figures, one line per scored set."""
        lines = [verdict_of(self.judged).describe(), f"Selected {self.facts.selected}."]
        return "\n".join([*lines, *(describe_figures(each) for each in self.findings.values())])


def record_split(session: Session, split: Split, *, title: str) -> RecordedSplit:
    """Fit and score one split, keeping everything in the session's run as soon as it exists; goes on where that has stopped."""
    run, inputs = session.run, session.inputs
    log_datasets(run, [split.train, split.val, *([] if inputs.watched is None else [inputs.watched])], title)
    _check_same_split(run, split)
    keep_split(run, split)
    state = load_last_state(run, load_state)
    observer = _Observer(session, split, state)
    result = run_split(inputs, split, session.options.recipe, on_epoch=observer, ranks=session.ranks, resume=state)
    say("figures with their intervals ...")
    n_epochs = len(observer.history["val/loss"])
    selected = f"{result.best.describe(n_epochs)}, by validation loss, on {title} validation tiles"
    _note_result(session, result, selected)
    calibration = calibrate(result.val, split.val, is_applied=session.options.calibration.is_wanted)
    facts = replace(
        _facts_of(session, split, result.network),
        weights_origin=result.weights_origin,
        selected=selected,
        temperature=calibration.temperature,
        is_calibrated=calibration.is_applied,
        abstain_below=calibration.abstain_below,
    )
    findings, baselines = _judge(session, split, facts, result, n_epochs)
    recorded = RecordedSplit(run, split, title, facts, result.best, result.val.loss, findings, baselines, observer.history)
    session.name.end(run, figure_of(recorded.judged))
    Description.of(recorded.judged).put(run, {**report_links(run, recorded.judged), **session.links})
    return recorded


def _check_same_split(run: Run, split: Split) -> None:
    """Raise `RequestError` if the run began with another split of these tiles, as an earlier version may have made."""
    before = kept_rows(run)
    if before and not all(np.array_equal(before[part.name], part.rows) for part in (split.train, split.val)):
        raise RequestError(
            f"run {run.id} began with another split of these tiles, made by an earlier version; start a new run from its "
            f"weights: weights={run.id}"
        )


def _note_result(session: Session, result: SplitResult, selected: str) -> None:
    n_processes = session.ranks.size
    best = {"best/epoch": result.best.best_epoch, "best/val_loss": result.best.best_val_loss}
    session.run.log_metrics({**best, **result.neighbours})
    facts = {
        "compute": result.best.compute.describe() + (f", {n_processes} processes" if n_processes > 1 else ""),
        "weights": result.weights_origin,
        "weights_sha256": session.inputs.initial.sha256 or None,
        "selected": selected,
    }
    note(session.run, facts)


def _judge(
    session: Session, split: Split, facts: ModelFacts, result: SplitResult, n_epochs: int
) -> tuple[dict[str, Findings], dict[str, Predictions]]:
    """Record the numbers of each scored part; return them by name, and what the baselines say of the validation tiles."""
    run, costs, baselines = session.run, session.inputs.costs, record_baselines(session.run, split)
    flow = {"training": split.train.count_classes(), "validation": split.val.count_classes()}
    findings: dict[str, Findings] = {}
    of_colour: dict[str, dict[str, Predictions]] = {}
    for part, scored in ((split.val, result.val), (session.inputs.watched, result.test)):
        if part is None or scored is None:
            continue
        looks, shown = 0, flow
        if part is not split.val:
            note_looks(run, part.tiles.fingerprint, n_epochs + 1)
            run.settle()
            looks, shown = count_looks(run.store, part.tiles.fingerprint), flow | {part.name: part.count_classes()}
        of_colour[part.name], figures = judge_by_colour(run, lambda: baselines, part, costs)
        details = Details(
            shown,
            facts.split_unit,
            calibration_of(facts),
            costs,
            baselines=figures,
            caveats=() if part is split.val else find_leaks(split.tiles, part.tiles),
        )
        about = About.of(part, f"run {run.id}", selected=facts.selected, looks=looks)
        predictions = predictions_of(scored, part, divisor=facts.divisor)
        findings[part.name] = record_findings(run, predictions, part, about, details)
    return findings, of_colour[split.val.name]


def read_best_network(run: Run) -> TileClassifier:
    """Return the network of the best epoch of a run, as it was kept; raises `StoreError` if it can't be had."""
    return run.read(f"{FOLDER}/{BEST}", load_weights)[0]


class _Observer:
    """Keeps each epoch: its weights, the state from which training can go on, its metrics.

    In this order: a state then never lacks the weights that it was judged by, and metrics that a kill has kept from the store
    are in the state and are sent when the run goes on.
    """

    def __init__(self, session: Session, split: Split, state: Mapping[str, Any] | None) -> None:
        self.history: dict[str, list[float]] = {}
        self._session, self._split = session, split
        self._run, self._options, self._watched = session.run, session.options, session.inputs.test
        self._sent = self._run.logged_values("train/loss").keys()
        if state is not None:
            self.history = {name: list(values) for name, values in state["history"].items()}
            say(f"{state['epoch']} epoch(s) are done")
            for epoch in range(1, state["epoch"] + 1):
                self._send(epoch)

    def __call__(self, report: EpochReport) -> None:
        metrics = epoch_metrics(report)
        for name, value in metrics.items():
            self.history.setdefault(name, []).append(value)
        try:
            if report.network is not None:
                self._keep_weights(report, report.network)
        except WorkError:  # a full disk takes the weights, not the figures
            self._send(report.epoch)
            raise
        self._send(report.epoch)
        left = report.describe_left(self._session.n_splits_after)
        say(describe_epoch(report.epoch, report.epochs, metrics, is_best=report.is_best, left=left))

    def _send(self, epoch: int) -> None:
        if epoch in self._sent:
            return
        show_at_a_glance(self._run, self._best_of(epoch))
        self._run.log_metrics({name: values[epoch - 1] for name, values in self.history.items()}, step=epoch)
        if self._watched is not None:
            note_looks(self._run, self._watched.fingerprint, epoch)

    def _best_of(self, n_epochs: int) -> dict[str, float]:
        """Return what stands for the training after so many epochs."""
        best = int(np.nan_to_num(self.history["val/loss"][:n_epochs], nan=np.inf).argmin())
        name = "val" if self._watched is None else "test"
        figure, loss = self.history[f"{name}/balanced_accuracy"][best], self.history[f"{name}/loss"][best]
        return glance_so_far(figure, loss, len(np.unique(self._split.val.labels)))

    def _keep_weights(self, report: EpochReport, network: Module) -> None:
        assert isinstance(network, TileClassifier)  # what `run_split` gives `fit`
        facts = replace(_facts_of(self._session, self._split, network), epoch=report.epoch, val_loss=report.val.loss)
        with scratch_folder() as folder:
            file = folder / epoch_file_name(report.epoch)
            save_weights(file, network, facts)
            older = [epoch_file_name(epoch) for epoch in range(1, report.epoch)]
            keep_weights(self._run, file, self._options.keeping, is_best=report.is_best, older=older)
        if report.state is None:
            return
        more = {
            "history": self.history,
            "data_fingerprint": self._split.tiles.fingerprint,
            "options": flatten(self._options),
        }
        self._run.write(f"{FOLDER}/{LAST}", partial(save_state, content={**report.state, **more}))


def _facts_of(session: Session, split: Split, network: TileClassifier) -> ModelFacts:
    """Return what is known of a network that learns on a split, whichever epoch will be selected."""
    tiles, initial = split.tiles, session.inputs.initial
    return ModelFacts(
        classes=tiles.classes,
        tile_size_px=network.tile_size_px,
        data_fingerprint=tiles.fingerprint,
        is_synthetic=tiles.is_synthetic,
        backbone=network.backbone_name,
        microns_per_pixel=tiles.microns_at(network.tile_size_px),
        preprocessing=network.describe_preprocessing(),
        weights_origin=initial.origin,
        weights_origin_sha256=initial.sha256,
        licence=initial.licence.words,
        may_be_passed_on=initial.licence.may_be_passed_on,
        data_source=tiles.describe(),
        tiles_per_class={
            "training": split.train.count_classes().tolist(),
            "validation": split.val.count_classes().tolist(),
        },
        split_unit=split.unit.describe(),
        encoder=tiles.encoder,
    )
