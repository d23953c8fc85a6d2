"""Which annotations belong to which slide, and what is said of those that belong to none."""

from pathlib import Path

import pytest

from histo_mlflow.errors import OptionError, RequestError, SourceNotFoundError
from histo_mlflow.slides.listing import SlideFile, SlideList
from histo_mlflow.slides.pairing import pair_slides


@pytest.fixture
def slides(tmp_path: Path) -> SlideList:
    return SlideList(tuple(SlideFile(tmp_path / "slides" / name) for name in ("a.svs", "b.ome.tif", "c.d.tif")))


def _files(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("[]")
    return folder


def test_files_are_called_as_slides(tmp_path: Path, slides: SlideList) -> None:
    drawn = _files(tmp_path / "drawn", "A.svs.geojson", "deep/b.geojson.gz", "other.json", "notes.txt", "a.png")
    pairs = pair_slides(slides, tmp_path / "slides", str(drawn))
    assert [(each.slide.name, each.annotations.name) for each in pairs.slides] == [
        ("a", "A.svs.geojson"), ("b", "b.geojson.gz"),
    ]  # fmt: skip
    assert pairs.bare == ("c.d",)
    assert [file.name for file in pairs.lost] == ["other.json"]


def test_they_are_looked_for_beside_the_slides(tmp_path: Path, slides: SlideList) -> None:
    _files(tmp_path / "slides", "c.d.json")
    (pair,) = pair_slides(slides, tmp_path / "slides", None).slides
    assert pair.slide.name == "c.d"


def test_a_table_names_them(tmp_path: Path, slides: SlideList) -> None:
    _files(tmp_path, "x/1.geojson")
    table = tmp_path / "table.csv"
    table.write_text(
        "slide,Annotations,patient\nslides/a.svs,x/1.geojson,p1\nslides/b.ome.tif,,p2\nslides/c.d.tif,x/1.geojson,\n"
    )
    pairs = pair_slides(slides, table, None)
    assert [(each.slide.name, each.annotations) for each in pairs.slides] == [
        ("a", tmp_path / "x/1.geojson"), ("c.d", tmp_path / "x/1.geojson"),
    ]  # fmt: skip
    assert pairs.bare == ("b",)
    table.write_text("slide,annotations\nslides/a.svs,x/2.geojson\nslides/b.ome.tif,\nslides/c.d.tif,\n")
    with pytest.raises(SourceNotFoundError, match=r"column annotations: x/2\.geojson does not exist"):
        pair_slides(slides, table, None)
    table.write_text("slide,patient\nslides/a.svs,1\nslides/b.ome.tif,1\nslides/c.d.tif,2\n")
    with pytest.raises(OptionError, match=r"annotations is missing: give .* or a column annotations in .*table\.csv"):
        pair_slides(slides, table, None)


def test_what_can_not_be_paired_is_a_line(tmp_path: Path, slides: SlideList) -> None:
    twice = _files(tmp_path / "twice", "a.geojson", "a.svs.geojson")
    with pytest.raises(RequestError, match=r"twice/a\.geojson and .*twice/a\.svs\.geojson are both of a"):
        pair_slides(slides, tmp_path / "slides", str(twice))
    none = _files(tmp_path / "none", "z.geojson")
    with pytest.raises(
        RequestError, match=r"there are none for the 3 slide\(s\), such as a\.geojson; .*z\.geojson is called as none"
    ):
        pair_slides(slides, tmp_path / "slides", str(none))
    with pytest.raises(SourceNotFoundError, match="no such file or folder"):
        pair_slides(slides, tmp_path / "slides", str(tmp_path / "lost"))
    with pytest.raises(OptionError, match="is one file, and there are 3 slides"):
        pair_slides(slides, tmp_path / "slides", str(none / "z.geojson"))
    one = SlideList(slides.slides[:1])
    assert pair_slides(one, slides.slides[0].path, str(none / "z.geojson")).slides[0].slide.name == "a"
