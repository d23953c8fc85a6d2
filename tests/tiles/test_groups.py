"""Whose tiles are whose: by patterns, barcodes and tables, each read as it is meant or refused in one line."""

import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from histo_mlflow.errors import OptionError, RequestError, SourceNotFoundError
from histo_mlflow.tiles.copies import find_copies
from histo_mlflow.tiles.open import open_tiles
from histo_mlflow.tiles.options import FoldOptions, HoldOutOptions, ReadingOptions
from histo_mlflow.tiles.splits import cut_folds, hold_out
from histo_mlflow.tiles.tile_set import TileSet
from tests.conftest import save_npz


@pytest.fixture
def folder(work: Path) -> Path:
    """12 tiles of 6 patients at 3 sites in 2 classes, called ``tiles/<class>/<site>-<patient>_<k>.png``."""
    rng = np.random.default_rng(0)
    for k in range(12):
        file = work / "tiles" / ("a" if k % 2 else "b") / f"s{k // 4}-p{k // 2}_{k:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8)).save(file)
    return work / "tiles"


def _read(groups: str, source: str = "tiles", **more: str) -> TileSet:
    return open_tiles(source, reading=ReadingOptions(groups=groups, **more))


def _as_patients(tiles: TileSet) -> list[str]:
    return [Path(name).name.split("-")[1].split("_")[0] for name in tiles.names]


def test_a_pattern_says_the_group_or_the_levels_that_it_names(folder: Path) -> None:
    tiles = _read(r"re:-(p\d+)_")
    assert list(tiles.known_levels) == ["group"]
    assert tiles.groups is not None
    assert tiles.groups.tolist() == _as_patients(tiles)
    tiles = _read(r"re:(?P<site>s\d+)-(?P<patient>p\d+)")
    assert list(tiles.known_levels) == ["site", "patient"], "from coarse to fine"
    assert tiles.groups is not None
    assert tiles.groups.tolist() == _as_patients(tiles), "intervals speak of patients"
    assert set(tiles.levels["site"]) == {"s0", "s1", "s2"}


@pytest.mark.parametrize(
    ("groups", "error", "reason"),
    [
        ("re:(", OptionError, r"groups=re:\(: is not a pattern"),
        ("re:p\\d", OptionError, "put what is meant into brackets"),
        ("re:(?P<ward>p)", OptionError, "ward is no level"),
        ("re:(p[0-4])_", RequestError, r"is not in 2 of 12 names of tiles, for instance \w/s2-p5"),
        (r"re:-(?P<patient>p\d)(?P<slide>x)?", RequestError, "12 of 12 tiles have no group"),
        ("tcga", RequestError, "groups=tcga is not in 12 of 12 names"),
        ("gone.csv", SourceNotFoundError, r"'gone\.csv' is no file .* no pattern"),
    ],
)
def test_what_says_nothing_is_refused(folder: Path, groups: str, error: type[Exception], reason: str) -> None:
    with pytest.raises(error, match=reason) as refused:
        _read(groups)
    assert "\n" not in str(refused.value)


def test_barcodes_say_site_patient_and_slide(work: Path) -> None:
    for k, name in enumerate(
        ("TCGA-AA-3949-01Z-00-DX1.23748e80_(9,7)", "TCGA-AA-3949-01A-01-TS1.x_1", "TCGA-AG-A02N-01Z-00-DX1_1")
    ):
        file = work / "t" / ("a" if k else "b") / f"{name}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (8, 8), (k, k, k)).save(file)
    tiles = _read("tcga", "t")
    by_name = {
        Path(name).name[:22]: {level: ids[k] for level, ids in tiles.levels.items()} for k, name in enumerate(tiles.names)
    }
    assert by_name["TCGA-AA-3949-01Z-00-DX"] == {"site": "AA", "patient": "TCGA-AA-3949", "slide": "TCGA-AA-3949-01Z-00-DX1"}
    assert by_name["TCGA-AA-3949-01A-01-TS"]["slide"] == "TCGA-AA-3949-01A-01-TS1"
    assert by_name["TCGA-AG-A02N-01Z-00-DX"]["site"] == "AG"


def _csv(names: list[str], **columns: list[str]) -> pd.DataFrame:
    return pd.DataFrame({"path": names, **columns})


@pytest.mark.parametrize("begins", ["at the tiles", "at the table", "at the root"])
@pytest.mark.parametrize("kind", ["csv", "semicolons", "xlsx", "other case"])
def test_a_table_of_tiles_is_read_however_it_is_written(folder: Path, begins: str, kind: str) -> None:
    plain = open_tiles("tiles")
    patients = _as_patients(plain)
    start = {"at the tiles": "", "at the table": "../tiles/", "at the root": f"{folder}/"}[begins]
    table = _csv([f"{start}{name}" for name in plain.names], group=patients, site=[p[1] for p in patients])
    table = table.sample(frac=1, random_state=0)
    Path("tables").mkdir()
    if kind == "xlsx":
        table.to_excel("tables/t.xlsx", index=False)
    elif kind == "other case":
        table.rename(columns=str.upper).to_csv("tables/t.csv", index=False, encoding="utf-8-sig")
    else:
        table.to_csv("tables/t.csv", index=False, sep=";" if kind == "semicolons" else ",")
    tiles = _read(f"tables/t.{'xlsx' if kind == 'xlsx' else 'csv'}")
    assert list(tiles.levels) == ["site", "group"]
    assert tiles.levels["group"].tolist() == patients


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda t: t.iloc[1:], r"no row for 1 of 12 tiles, for instance a/s0-p0_01\.png; add them"),
        (lambda t: pd.concat([t, t.iloc[:1]]), r"names a/s0-p0_01\.png in more than one row"),
        (
            lambda t: pd.concat([t, _csv(["a/x.png"], group=["p"])]),
            r"1 of 13 rows name no tile of the set, for instance a/x\.png",
        ),
        (lambda t: t.assign(group=["", *t.group[1:]]), "t.csv, column group: 1 of 12 tiles have no group"),
        (lambda t: t.rename(columns={"group": "ward"}), "has no column site, patient, group, slide; its columns are path ward"),
        (lambda t: t.rename(columns={"path": "file"}), "one table with a column path"),
        (lambda t: t.assign(Group="x"), "has the column group twice"),
        (lambda t: t.iloc[:0], "no row for 12 of 12 tiles"),
    ],
)
def test_a_table_that_does_not_fit_is_refused(
    folder: Path, change: Callable[[pd.DataFrame], pd.DataFrame], reason: str
) -> None:
    names = open_tiles("tiles").names.tolist()
    change(_csv(names, group=[name[-8] for name in names])).to_csv("t.csv", index=False)
    with pytest.raises(RequestError, match=reason) as refused:
        _read("t.csv")
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize(("name", "content"), [("t.csv", b"path,group\n\xff,1"), ("t.xlsx", b"PK\x03\x04"), ("t.csv", b"")])
def test_a_file_that_is_no_table_is_refused(folder: Path, name: str, content: bytes) -> None:
    Path(name).write_bytes(content)
    with pytest.raises(OptionError, match=rf"{name}.*(can't be read as a table|a column path)"):
        _read(name)


def test_a_table_covers_several_sources(folder: Path) -> None:
    shutil.copytree("tiles", "more")
    names = open_tiles("tiles,more").names.tolist()
    assert names[:1] == ["tiles/a/s0-p0_01.png"]
    _csv(names, group=[f"{name[0]}{name[-8]}" for name in names]).sample(frac=1, random_state=0).to_csv("t.csv", index=False)
    tiles = _read("t.csv", "tiles,more")
    assert tiles.groups is not None
    assert tiles.groups.tolist() == [f"{name[0]}{name[-8]}" for name in names]
    with pytest.raises(RequestError, match="12 of 24 rows name no tile of the set, for instance more/"):
        _read("t.csv")


def test_a_table_names_tiles_of_an_npz_by_their_index(tiny_npz: Path) -> None:
    _csv([str(k) for k in range(54)], patient=[f"p{k % 7}" for k in range(54)]).to_csv("n.csv", index=False)
    assert _read("n.csv", str(tiny_npz)).levels["patient"].tolist() == [f"p{k % 7}" for k in range(54)]
    _csv(["0"], group=["p"]).to_csv("t.csv", index=False)
    with pytest.raises(RequestError, match="no row for 53 of 54"):
        _read("t.csv", str(tiny_npz))


def test_slides_and_patients_are_joined(folder: Path) -> None:
    pd.DataFrame({"PATIENT": ["A", "A", "B", "C"], "FILENAME": ["s0-p0.svs", "s0-p1", "s1", "s2.v1"]}).to_csv(
        "slides.csv", index=False
    )
    pd.DataFrame({"PATIENT": ["A", "B"], "SITE": ["x", "y"], "MSI": ["high", "low"]}).to_excel("clini.xlsx", index=False)
    with pytest.raises(RequestError, match=r"no row for 4 of 12 tiles, for instance a/s2-p4_09\.png"):
        _read("slides.csv")
    pd.DataFrame({"PATIENT": list("AABC"), "FILENAME": ["s0-p0.svs", "s0-p1", "s1", "s2"]}).to_csv("slides.csv", index=False)
    tiles = _read("slides.csv")
    assert list(tiles.levels) == ["patient", "slide"]
    assert [tiles.levels["patient"][k] for k in (0, 1, 2, 3, 4, 5)] == ["A", "A", "B", "B", "C", "C"]
    assert set(tiles.levels["slide"]) == {"s0-p0", "s0-p1", "s1", "s2"}
    with pytest.raises(RequestError, match=r"column site: 4 of 12 tiles have no group"):
        _read("slides.csv,clini.xlsx")
    labelled = _read("slides.csv,clini.xlsx", labels="column:MSI")
    assert labelled.class_counts() == {"high": 4, "low": 4}
    assert labelled.notes == ("4 of 12 tiles of tiles have no class and are left out",)
    assert list(labelled.levels) == ["site", "patient", "slide"]
    with pytest.raises(OptionError, match="need a column PATIENT each"):
        _csv(["x"], group=["p"]).to_csv("t.csv", index=False)
        _read("t.csv,clini.xlsx")


def test_none_takes_stored_groups_away_and_auto_offers_likeness_that_is_not_called_patients(
    work: Path, tiny_tiles: TileSet
) -> None:
    np.savez("a.npz", data=tiny_tiles.images, labels=tiny_tiles.labels, groups=np.arange(54) // 3)
    assert _read("stored", "a.npz").groups is not None
    assert not _read("none", "a.npz").known_levels
    tiles = _read("auto", "a.npz")
    assert list(tiles.known_levels) == ["cluster"]
    assert tiles.groups is None, "intervals do not take likeness for patients"
    assert all(len(set(tiles.labels[tiles.levels["cluster"] == cluster])) == 1 for cluster in set(tiles.levels["cluster"]))
    splits = cut_folds(tiles, FoldOptions(3), seed=0)
    assert "clusters of likeness, not patients" in splits[0].unit.describe()
    assert "tile-level split: optimistic" in splits[0].unit.describe()
    for split in splits:
        assert not set(tiles.levels["cluster"][split.train.rows]) & set(tiles.levels["cluster"][split.val.rows])


def test_the_highest_level_of_which_there_are_enough_is_taken_and_named(folder: Path) -> None:
    tiles = _read(r"re:(?P<site>s\d+)-(?P<patient>p\d+)")
    assert {split.unit.level for split in cut_folds(tiles, FoldOptions(3), seed=0)} == {"site"}
    (unit, *_) = [split.unit for split in cut_folds(tiles, FoldOptions(4), seed=0)]
    assert unit.describe() == (
        "the patient, 6 patients, each on one side only; not site (3 of them), too few to part the classes as asked"
    )
    assert hold_out(tiles, HoldOutOptions(0.15), seed=0).unit.level == "patient", (
        "a third of the tiles is over twice as many as asked"
    )
    assert hold_out(tiles, HoldOutOptions(1 / 3), seed=0).unit.level == "site"
    assert cut_folds(tiles, FoldOptions(3, split_by="patient"), seed=0)[0].unit.level == "patient"
    by_tile = cut_folds(tiles, FoldOptions(3, split_by="tile"), seed=0)[0].unit
    assert "as asked" in by_tile.describe()
    assert "tile-level split: optimistic" in by_tile.describe()
    with pytest.raises(
        OptionError, match=r"split_by=slide: tiles does not say the slide of its tiles, it has site and patient"
    ):
        cut_folds(tiles, FoldOptions(3, split_by="slide"), seed=0)


def test_each_site_is_a_fold(folder: Path) -> None:
    tiles = _read(r"re:(?P<site>s\d+)-(?P<patient>p\d+)")
    splits = cut_folds(tiles, FoldOptions("site"), seed=0)
    assert [set(tiles.levels["site"][split.val.rows]) for split in splits] == [{"s0"}, {"s1"}, {"s2"}]
    assert len(cut_folds(tiles, FoldOptions("patient"), seed=0)) == 6
    with pytest.raises(OptionError, match="folds=site makes each site a fold; leave split_by=patient out"):
        FoldOptions("site", split_by="patient")
    with pytest.raises(RequestError, match="needs at least two"):
        cut_folds(replace(tiles, levels={"site": np.array(["one"] * 12)}), FoldOptions("site"), seed=0)


def test_copies_of_a_tile_lie_on_the_side_of_their_original(work: Path, tiny_tiles: TileSet) -> None:
    rows = np.concatenate([np.arange(54), np.arange(27)])
    save_npz(work / "a.npz", replace(tiny_tiles, images=tiny_tiles.images[rows], labels=tiny_tiles.labels[rows]))
    tiles = open_tiles("a.npz")
    for found in (find_copies(tiles), find_copies(tiles)):  # found out, and kept in the cache
        assert found.tolist() == [*range(54), *range(27)]
    tiles = replace(tiles, copies=found)
    for split in [*cut_folds(tiles, FoldOptions(3), seed=0), hold_out(tiles, HoldOutOptions(0.2), seed=0)]:
        assert not set(found[split.train.rows]) & set(found[split.val.rows])
        assert len(split.train) + len(split.val) == 81
        assert "27 copies lie on the side of their originals" in split.unit.describe()
    merged = replace(tiles, groups=np.array([f"p{k // 9}" for k in range(81)]))  # nine groups, three of them with copies
    unit = cut_folds(merged, FoldOptions(3), seed=0)[0].unit
    assert "9 groups (patients or slides), each on one side only, in 6 sets because some share tiles" in unit.describe()
