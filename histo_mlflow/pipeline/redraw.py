"""Pictures and pages of an ended run made again from what it keeps."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache

from histo_mlflow.base.plain_values import reason_of
from histo_mlflow.console import say
from histo_mlflow.errors import RequestError, WorkError
from histo_mlflow.pipeline.contents import FOLD_TAG, REPORT_TAG
from histo_mlflow.pipeline.draw import CURVES, draw, draw_models
from histo_mlflow.pipeline.kept_runs import read_compared, read_config, read_drawable, reopen_tiles
from histo_mlflow.tiles.tile_set import TileSet
from histo_mlflow.tracking.found_runs import nested_runs
from histo_mlflow.tracking.runs import Run


def redraw(run: Run) -> dict[str, list[str]]:
    """Draw all that a run and its folds keep; return by the run's id what was drawn."""
    open_once = cache(_open)
    return {each.id: _draw(each, open_once) for each in (*nested_runs(run, FOLD_TAG).values(), run)}


def _draw(run: Run, open_once: Callable[[str, int, str], TileSet | None]) -> list[str]:
    """Draw all that a run keeps, and return what that is."""
    drawable, compared, config = read_drawable(run), read_compared(run), read_config(run)
    learnt_from, scored = str(config.get("data", "")), str(config.get("test_data", config.get("data", "")))
    tiles: dict[str, TileSet] = {}
    for findings in drawable.findings:
        about, split = findings.about, findings.about.split
        found = open_once(learnt_from if about.is_selected_on else scored, about.tile_size_px, about.fingerprint)
        tiles |= {} if found is None else {split: found}
    draw(drawable, tiles, _or_end)
    if compared is not None:
        comparison, models = compared
        found = open_once(scored, models.tile_size_px, models.fingerprint)
        draw_models(run, comparison, models, found, _or_end)
    if REPORT_TAG in run.tags():
        run.set_tags({REPORT_TAG: "made"})
    run.settle()
    names = [f"evaluation/{findings.about.split}" for findings in drawable.findings]
    return [*([CURVES] if drawable.curves else []), *names, *(["comparison"] if compared else [])]


def _open(source: str, tile_size_px: int, fingerprint: str) -> TileSet | None:
    """Return the tiles if they still are there and the same; else None, with a line that says so."""
    try:
        return reopen_tiles(source, tile_size_px, fingerprint)
    except (RequestError, WorkError, OSError) as error:
        say(f"no tiles are shown: {error}")
        return None


@contextmanager
def _or_end(what: str) -> Iterator[None]:
    try:
        yield
    except (RequestError, WorkError):
        raise
    except Exception as error:
        raise WorkError(
            f"{what} could not be made ({type(error).__name__}: {reason_of(error)}); correct that and run it again"
        ) from error
