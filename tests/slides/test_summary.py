"""One line for each slide: areas counted once, shares of a whole, all slides of workers that do not wait for each other."""

import csv
import multiprocessing
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given

from histo_mlflow.errors import WorkError
from histo_mlflow.slides.cells import cells_of
from histo_mlflow.slides.scored import ScoredSlide
from histo_mlflow.slides.summary import (
    DONE,
    FAILED,
    NO_TISSUE,
    SlideSummary,
    gather_summaries,
    read_slide_summary,
    summarize,
    write_slide_summary,
    write_summary,
)
from histo_mlflow.slides.tissue import Tissue
from tests.slides.scored_slides import draw_scored, scored_slides


def _rows(file: Path) -> list[dict[str, str]]:
    with file.open(newline="", encoding="utf-8") as opened:
        return list(csv.DictReader(opened))


def test_areas_are_those_of_the_slide_however_tiles_overlap() -> None:
    for stride, edge_mm in ((1.0, 0.056), (0.5, 0.028), (2.0, 0.056)):
        scored = draw_scored((10, 10), stride=stride)
        summary = summarize(scored)
        assert summary.scored_mm2 == pytest.approx(100 * edge_mm**2)
        assert sum(summary.areas_mm2) == pytest.approx(summary.scored_mm2 * (1 - summary.abstained_share))


def test_tissue_is_a_share_of_the_slide() -> None:
    scored = draw_scored((4, 4), edge_px=100)
    width, height = scored.size_px
    mask = np.zeros((height // 10 + 1, width // 10 + 1), bool)
    mask[:20, :20] = True
    summary = summarize(scored, Tissue(mask, 10.0))
    assert summary.tissue_mm2 == pytest.approx(0.05**2)
    assert summary.tissue_share == pytest.approx(200 * 200 / (width * height))
    everything = summarize(scored, Tissue(np.ones_like(mask), 10.0))  # the mask reaches over the slide
    assert everything.tissue_share == 1.0


def test_a_slide_without_tissue_says_so(tmp_path: Path) -> None:
    summary = summarize(draw_scored((0, 0), classes=("A", "B")))
    assert summary.state == NO_TISSUE
    write_slide_summary(summary, tmp_path / "a.json")
    gather_summaries(tmp_path, tmp_path / "summary.csv")
    (row,) = _rows(tmp_path / "summary.csv")
    assert (row["state"], row["tiles"], row["area_mm2_A"], row["share_A"]) == ("no tissue", "0", "0", "")


def test_the_table_has_every_slide_and_says_why_one_failed(tmp_path: Path) -> None:
    good = summarize(draw_scored((5, 5), classes=("A", "B"))).with_facts(
        model="histo-b3 version 3", sha256="ab" * 32, seconds=2.0, reading_share=0.25
    )
    bad = SlideSummary("broken", state=FAILED, why="it ends after 12 bytes,\nsay others")
    for each in (good, bad):
        write_slide_summary(each, tmp_path / f"{each.slide}.json")
        assert read_slide_summary(tmp_path / f"{each.slide}.json") == each
    gather_summaries(tmp_path, tmp_path / "out" / "summary.csv")
    a, b = _rows(tmp_path / "out" / "summary.csv")
    assert (a["slide"], a["state"], a["tiles"], a["tiles_per_second"]) == ("a slide", DONE, "25", "12.5")
    assert float(a["share_A"]) + float(a["share_B"]) + float(a["abstained_share"]) == pytest.approx(1, abs=1e-5)
    assert (b["slide"], b["state"], b["area_mm2_A"]) == ("broken", "failed: it ends after 12 bytes,\\nsay others", "")


def test_what_is_no_summary_is_named(tmp_path: Path) -> None:
    for text in ("", "[]", "{}", '{"slide": "a", "classes": 3}'):
        (tmp_path / "a.json").write_text(text)
        with pytest.raises(WorkError, match=r"a\.json is not the summary of a slide"):
            write_summary([tmp_path / "a.json"], tmp_path / "summary.csv")
    assert not (tmp_path / "summary.csv").exists()


def _work(number: int, folder: Path) -> None:
    for k in range(5):
        write_slide_summary(SlideSummary(f"slide {number}-{k}"), folder / "state" / f"{number}-{k}.json")
        gather_summaries(folder / "state", folder / "summary.csv")


def test_workers_lose_no_slide_of_each_other(tmp_path: Path) -> None:
    workers = [multiprocessing.get_context("fork").Process(target=_work, args=(number, tmp_path)) for number in range(4)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert [worker.exitcode for worker in workers] == [0] * 4
    assert [row["slide"] for row in _rows(tmp_path / "summary.csv")] == [f"slide {n}-{k}" for n in range(4) for k in range(5)]


@given(scored_slides())
def test_areas_add_up_whatever_the_slide(scored: ScoredSlide) -> None:
    summary, cells = summarize(scored), cells_of(scored)
    union = shapely.union_all(shapely.box(*cells.bounds.T)).area * scored.microns_per_pixel**2 / 1e6
    assert summary.scored_mm2 == pytest.approx(union)
    not_sure = summary.scored_mm2 * (summary.abstained_share or 0)
    assert sum(summary.areas_mm2) + not_sure == pytest.approx(summary.scored_mm2)
    assert len(summary.areas_mm2) == len(scored.classes)
