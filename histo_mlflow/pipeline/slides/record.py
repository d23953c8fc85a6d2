"""What a run in MLflow keeps of the slides that were scored: figures slide by slide, tables, pictures, what was read."""

import hashlib
from collections import defaultdict
from collections.abc import Generator, Mapping
from contextlib import closing
from dataclasses import dataclass, field, replace
from typing import Any

import yaml

from histo_mlflow.base.escaping import visible
from histo_mlflow.pipeline.contents import Beginning
from histo_mlflow.pipeline.names import RunName, short_data, short_model
from histo_mlflow.pipeline.slides.batch import DONE, DONE_BEFORE, ELSEWHERE, FAILED_NOW, Batch, Outcome
from histo_mlflow.pipeline.slides.files import GEOJSON, PICTURE, TABLE
from histo_mlflow.pipeline.slides.state import read_state
from histo_mlflow.slides.summary import SlideSummary, write_summary
from histo_mlflow.tracking.options import RunOptions
from histo_mlflow.tracking.runs import Run

_FOLDER = "slides"
_SHOWN_SLIDES = 100
_NAMED_FAILURES = 20


@dataclass(frozen=True)
class Outcomes:
    """What became of all slides of a call."""

    by_kind: dict[str, list[Outcome]] = field(default_factory=lambda: defaultdict(list))

    def of(self, kind: str) -> tuple[str, ...]:
        """Return the names of those of which that became."""
        return tuple(each.name for each in self.by_kind[kind])

    def describe_failed(self) -> str:
        """Return in one line how many slides have failed, which, and why."""
        failed = self.by_kind[FAILED_NOW]
        n_all = sum(map(len, self.by_kind.values()))
        named = "; ".join(f"{each.name}: {each.why}" for each in failed[:_NAMED_FAILURES])
        more = f"; and {len(failed) - _NAMED_FAILURES} more, in summary.csv" if len(failed) > _NAMED_FAILURES else ""
        return f"{len(failed)} of {n_all} slides could not be scored (all others were): {named}{more}"


def how_slides_begin(batch: Batch, source: str, naming: RunOptions) -> Beginning:
    """Return how a run on slides begins, with which model and on what."""
    model = batch.model.model
    about: dict[str, Any] = {
        "synthetic": model.facts.is_synthetic,
        "model_sha256": batch.model.digest,
        "compute": batch.model.compute.describe(),
        "output": str(batch.folder),
    }
    name = RunName.of(f"{short_model(model.address)} on {short_data(source)}", naming)
    beginning = Beginning.of("slide", name, **about)
    return replace(beginning, tags={**beginning.tags, "histo.model": model.address})


def record_slides(run: Run, batch: Batch, coming: Generator[Outcome, None, None], *, keep: str) -> Outcomes:
    """Keep what becomes of each slide as it comes, and tables of all at the end; return what became of them.

    Metrics have one step for each slide that was done now, in the order in which they were. `keep` says of which files copies
    go into the run: `all`, `small` ones, or the `summary` alone.
    """
    outcomes = Outcomes()
    with closing(coming):  # an interruption may come here, and it has its table to write
        for outcome in coming:
            outcomes.by_kind[outcome.kind].append(outcome)
            if outcome.kind == DONE:
                _record_slide(run, batch, outcome, step=len(outcomes.by_kind[DONE]), keep=keep)
    _record_all(run, batch, outcomes)
    return outcomes


def _record_slide(run: Run, batch: Batch, outcome: Outcome, *, step: int, keep: str) -> None:
    summary, state = batch.summary_of(outcome.name), read_state(batch.state_file(outcome.name))
    run.log_metrics(figures_of(summary, {} if state is None else state.drift), step=step)
    for name in () if state is None or keep == "summary" else state.outputs:
        path = batch.folder / name
        if path.is_dir():
            if keep == "all":
                run.log_folder(path, f"{_FOLDER}/{name}")
        elif keep == "all" or name.removeprefix(outcome.name) in {PICTURE, GEOJSON, TABLE}:
            run.log_file(path, _FOLDER)


def figures_of(summary: SlideSummary, drift: Mapping[str, float]) -> dict[str, float]:
    """Return what is said of a slide as metrics, those that there are."""
    found = {
        "slide/tiles": summary.tiles,
        "slide/unreadable_tiles": summary.unreadable_tiles,
        "slide/tissue_mm2": summary.tissue_mm2,
        "slide/mean_confidence": summary.mean_confidence,
        "slide/abstained_share": summary.abstained_share,
        "slide/seconds": summary.seconds,
        "slide/tiles_per_second": summary.tiles_per_second,
        "slide/reading_share": summary.reading_share,
        **drift,
    }
    if summary.scored_mm2:
        areas = zip(summary.classes, summary.areas_mm2, strict=True)
        found |= {f"slide/share/{name}": area / summary.scored_mm2 for name, area in areas}
    return {name: float(value) for name, value in found.items() if value is not None}


def _record_all(run: Run, batch: Batch, outcomes: Outcomes) -> None:
    named = [name for kind in (DONE, DONE_BEFORE, FAILED_NOW) for name in outcomes.of(kind)]
    files = [file for name in named if (file := batch.summary_file(name)).is_file()]
    run.write("summary.csv", lambda path: write_summary(files, path))
    shown = {name: state for name in sorted(named) if (state := read_state(batch.state_file(name))) is not None}
    if shown:
        slides = {name: state.sha256 for name, state in shown.items()}
        digest = hashlib.sha256(repr(slides).encode()).hexdigest()
        profile = yaml.safe_dump({"n_slides": len(slides), "sha256": slides}, sort_keys=False, allow_unicode=True)
        run.log_dataset(name="slides", split="slides", source=str(batch.folder), fingerprint=digest, profile=profile)
    run.set_tags({f"histo.slides.{kind.replace(' ', '_')}": len(each) for kind, each in sorted(outcomes.by_kind.items())})
    run.describe(_page(batch, outcomes))


def _page(batch: Batch, outcomes: Outcomes) -> str:
    """Return the table of the slides in Markdown, which MLflow shows on the run's page."""
    lines = [
        f"{describe_outcomes(outcomes)}; model {_cell(batch.model.model.address)}; files: `{batch.folder}`", "",
        "| slide | tissue mm2 | tiles | most | of it | tiles/s |", "|---|---|---|---|---|---|",
    ]  # fmt: skip
    done = sorted({*outcomes.of(DONE), *outcomes.of(DONE_BEFORE)})
    for name in done[:_SHOWN_SLIDES]:
        found = batch.summary_of(name)
        tissue = "" if found.tissue_mm2 is None else f"{found.tissue_mm2:.2f}"
        most, share = "no tissue", ""
        if found.scored_mm2:
            most, area = max(zip(found.classes, found.areas_mm2, strict=True), key=lambda each: each[1])
            share = f"{area / found.scored_mm2:.0%}"
        rate = "" if found.tiles_per_second is None else f"{found.tiles_per_second:.0f}"
        lines.append(f"| {_cell(name)} | {tissue} | {found.tiles} | {_cell(most)} | {share} | {rate} |")
    if len(done) > _SHOWN_SLIDES:
        lines.append(f"\nand {len(done) - _SHOWN_SLIDES} more in summary.csv")
    lines += [
        "",
        *(f"- **{_cell(each.name)} failed**: {_cell(each.why)}" for each in outcomes.by_kind[FAILED_NOW][:_NAMED_FAILURES]),
    ]
    return "\n".join(lines)


def _cell(text: str) -> str:
    return visible(text).replace("|", "\\|").replace("<", "&lt;")


def describe_outcomes(outcomes: Outcomes) -> str:
    """Return in a few words what became of how many slides."""
    words = {DONE: "done", DONE_BEFORE: "done before", ELSEWHERE: "with other processes", FAILED_NOW: "failed"}
    said = [f"{len(outcomes.by_kind[kind])} {text}" for kind, text in words.items() if outcomes.by_kind[kind]]
    return f"slides: {', '.join(said) or 'none'}"
