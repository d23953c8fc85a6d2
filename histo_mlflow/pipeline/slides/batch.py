"""Many slides through one model: each is done once, whole or not at all, whoever shares the work and whatever ends it."""

import shutil
import time
import traceback
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from histo_mlflow.base.claims import claimed
from histo_mlflow.base.digests import sha256_of
from histo_mlflow.base.interruption import shielded
from histo_mlflow.base.plain_values import reason_of
from histo_mlflow.base.progress import Bar
from histo_mlflow.base.whole_file import remove
from histo_mlflow.console import say, warn
from histo_mlflow.errors import RequestError, UnreadableSlideError, WorkError
from histo_mlflow.pipeline.slides.files import ENDINGS, TISSUE
from histo_mlflow.pipeline.slides.model import SlideModel
from histo_mlflow.pipeline.slides.score import SlideRules, SlideScore, opened_slide, regions_for, score_slide
from histo_mlflow.pipeline.slides.state import SlideIdentity, SlideState, identify, read_state, write_state
from histo_mlflow.slides.listing import SlideFile
from histo_mlflow.slides.slide import Slide
from histo_mlflow.slides.summary import (
    FAILED,
    SlideSummary,
    gather_summaries,
    read_slide_summary,
    summarize,
    write_slide_summary,
)

DONE, DONE_BEFORE, ELSEWHERE, FAILED_NOW = "done", "done before", "elsewhere", "failed"

_STATES, _SUMMARIES = "state", "summaries"
_NAMED_TILES = 3

# Writes all files of a slide into a folder.
Writer = Callable[[Slide, SlideScore, Path], object]


@dataclass(frozen=True)
class Outcome:
    """What became of a slide.

    Attributes:
        name: What its results are called.
        path: Its file.
        kind: `DONE`, `DONE_BEFORE`, `ELSEWHERE` or `FAILED_NOW`.
        why: Who does it, or what went wrong.
    """

    name: str
    path: Path
    kind: str
    why: str = ""


@dataclass(frozen=True, eq=False)
class Batch:
    """What is to be done with each slide, and where the results go.

    Attributes:
        folder: Gets the files of all slides; several processes may share it.
        model: What slides are shown to.
        rules: What they are asked for.
        options: Everything that changes results, by name, as JSON has it.
        write: Writes the files of a slide.
    """

    folder: Path
    model: SlideModel
    rules: SlideRules
    options: Mapping[str, Any]
    write: Writer

    def state_file(self, name: str) -> Path:
        """Where the state of a slide is."""
        return self.folder / _STATES / f"{name}.json"

    def error_file(self, name: str) -> Path:
        """Where it is noted how a slide has failed."""
        return self.folder / _STATES / f"{name}.error.txt"

    def summary_file(self, name: str) -> Path:
        """Where the summary of a slide is."""
        return self.folder / _SUMMARIES / f"{name}.json"

    def summary_of(self, name: str) -> SlideSummary:
        """What is said of a slide that was done."""
        return read_slide_summary(self.summary_file(name))

    def options_of(self, file: SlideFile) -> dict[str, Any]:
        """All that changes the results of a slide, by name."""
        regions = regions_for(file.name, self.rules)
        given = "" if regions is None else sha256_of(regions)
        return {**self.options, "mpp_of_slide": file.microns_per_pixel, "regions_sha256": given}


def part_of(slides: Sequence[SlideFile], part: tuple[int, int]) -> list[SlideFile]:
    """Return the i-th of n parts of the slides by name: every slide is in one of them, and sizes differ by one at most."""
    number, n_parts = part
    return sorted(slides, key=lambda each: each.name)[number - 1 :: n_parts]


def run_batch(batch: Batch, slides: Sequence[SlideFile]) -> Generator[Outcome, None, None]:
    """Do the slides that are not done, in order, and yield what becomes of each; an odd one ends nothing.

    Raises:
        WorkError: The output folder can't be written.
    """
    try:
        for folder in (_STATES, _SUMMARIES):
            (batch.folder / folder).mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise WorkError(
            f"output={batch.folder} can't be written ({reason_of(error)}); check the path and permissions"
        ) from None
    try:
        for file in Bar(slides, desc="slides", unit="slide"):
            yield _do(batch, file)
    finally:
        with shielded():
            gather_summaries(batch.folder / _SUMMARIES, batch.folder / "summary.csv")


def _do(batch: Batch, file: SlideFile) -> Outcome:
    name = file.name
    with claimed(batch.folder / _STATES / f"{name}.claim") as owner:
        if owner is not None:
            say(f"{name}: {owner} is at it")
            return Outcome(name, file.path, ELSEWHERE, owner)
        try:
            earlier = read_state(batch.state_file(name))
            identity = identify(file.path, earlier)
            if earlier is not None and _is_done(batch, file, identity, earlier):
                return Outcome(name, file.path, DONE_BEFORE)
            _do_anew(batch, file, identity, earlier)
        except Exception as error:  # whatever is odd about this slide, the next one may be sound
            return _failed(batch, file, error)
        return Outcome(name, file.path, DONE)


def _is_done(batch: Batch, file: SlideFile, identity: SlideIdentity, earlier: SlideState) -> bool:
    fits = earlier.fits(identity, batch.model.digest, batch.options_of(file), batch.folder)
    return fits and batch.summary_file(file.name).is_file() and batch.summary_of(file.name).state != FAILED


def _do_anew(batch: Batch, file: SlideFile, identity: SlideIdentity, earlier: SlideState | None) -> None:
    begun, name = time.monotonic(), file.name
    draft = batch.folder / _STATES / f"{name}.draft"
    shutil.rmtree(draft, ignore_errors=True)  # of a process that was killed
    draft.mkdir()
    try:
        score = _score(batch, file, draft)
        if identify(file.path, identity).sha256 != identity.sha256:
            raise UnreadableSlideError(f"{file.path} was changed while it was read; run it again")
        seconds = time.monotonic() - begun
        summary = summarize(score.scored, score.tissue).with_facts(
            model=batch.model.model.address, sha256=identity.sha256, seconds=seconds,
            reading_share=score.waited_seconds / seconds,
        )  # fmt: skip
        tissue = _Tissue.of(batch, name, draft, earlier)
        batch.state_file(name).unlink(missing_ok=True)  # of other results, of which some are about to be replaced
        outputs = _put_in_place(batch, name, draft, tissue.kept)
        state = SlideState(
            slide=str(file.path), **asdict(identity), model=batch.model.model.address, model_sha256=batch.model.digest,
            options=batch.options_of(file), outputs=outputs, drift=dict(score.compared.metrics),
            tissue_sha256=tissue.sha256, unreadable=score.scored.unreadable,
        )  # fmt: skip
        write_slide_summary(summary, batch.summary_file(name))
        write_state(state, batch.state_file(name))
    finally:
        shutil.rmtree(draft, ignore_errors=True)
    batch.error_file(name).unlink(missing_ok=True)
    rate = f"{summary.tiles_per_second:.0f} tiles/s" if summary.tiles else "no tissue found"
    say(f"{name}: {summary.tiles} tiles in {seconds:.0f} s, {rate}")
    if unreadable := score.scored.unreadable:
        first = "; ".join(f"{left}, {top}" for left, top in unreadable[:_NAMED_TILES])
        warn(
            f"{name}: {len(unreadable)} of {summary.tiles + len(unreadable)} tiles can't be decoded and are left out, black in "
            f"the picture: at {first}{' and so on' * (len(unreadable) > _NAMED_TILES)} (all in {batch.state_file(name)})"
        )
    if summary.tiles and batch.model.model.summary is not None:
        score.compared.tell(name)


def _score(batch: Batch, file: SlideFile, draft: Path) -> SlideScore:
    with opened_slide(file, batch.rules, batch.model) as slide:
        with Bar[None](desc=file.name[:40], unit="tile") as bar:

            def advance(n_done: int, n_tiles: int) -> None:
                bar.total = n_tiles
                bar.update(n_done)

            score = score_slide(slide, file.name, batch.rules, batch.model, advance)
        batch.write(slide, score, draft)
    return score


@dataclass(frozen=True)
class _Tissue:
    """The file of tissue in the output folder: a person may edit it, or put one there.

    Attributes:
        kept: Its name if it is left as it is, for it was given or is a person's; else None.
        sha256: Of what was last written there by us, or "".
    """

    kept: str | None
    sha256: str

    @classmethod
    def of(cls, batch: Batch, name: str, draft: Path, earlier: SlideState | None) -> "_Tissue":
        """Tell whose it is, and say so if it is a person's."""
        file = batch.folder / f"{name}{TISSUE}"
        before = "" if earlier is None else earlier.tissue_sha256
        if batch.rules.regions is not None:
            return cls(file.name, before)
        now = sha256_of(draft / file.name)
        if not file.is_file() or sha256_of(file) in (before, now):
            return cls(None, now)
        warn(f"{file} is not as it was written, and stays as it is: --tissue {batch.folder} looks there; else remove it")
        return cls(file.name, before)


def _put_in_place(batch: Batch, name: str, draft: Path, kept: str | None) -> tuple[str, ...]:
    """Move what was written into the output folder, remove what other options had written beside it, and return the names.

    What is called `kept` stays there as it is.
    """
    written = tuple(sorted(each.name for each in draft.iterdir() if each.name != kept))
    for ending in ENDINGS:
        if f"{name}{ending}" != kept:
            remove(batch.folder / f"{name}{ending}")
    for each in written:
        (draft / each).replace(batch.folder / each)
    return written


def _failed(batch: Batch, file: SlideFile, error: Exception) -> Outcome:
    """Note what went wrong with a slide, with where in the code for who looks into it."""
    is_ours = isinstance(error, RequestError | WorkError)
    why = str(error) if is_ours else f"{type(error).__name__}: {reason_of(error)}"
    with suppress(OSError, WorkError):  # the error itself may be that nothing can be written
        batch.error_file(file.name).write_text("".join(traceback.format_exception(error)), encoding="utf-8")
        failed = SlideSummary(file.name, state=FAILED, why=why, model=batch.model.model.address)
        write_slide_summary(failed, batch.summary_file(file.name))
    warn(f"{file.name}: {why}")
    return Outcome(file.name, file.path, FAILED_NOW, why)
