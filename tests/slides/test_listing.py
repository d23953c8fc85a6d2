"""Slides of a file, a folder or a table: each once and by its name, and what is passed over is said."""

from pathlib import Path

import pandas as pd
import pytest

from histo_mlflow.errors import OptionError, RequestError, SourceNotFoundError
from histo_mlflow.slides.listing import SlideFile, list_slides
from tests.slide_writers import draw_picture, write_dicom


def _touch(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"slide")


def test_one_file(tmp_path: Path) -> None:
    _touch(tmp_path / "a.svs")
    assert list_slides(tmp_path / "a.svs").slides == (SlideFile(tmp_path / "a.svs"),)


@pytest.mark.parametrize(
    ("file", "name"),
    [("TCGA-AA-3495-DX1.67c8.svs", "TCGA-AA-3495-DX1.67c8"), ("b.ome.tif", "b"), ("c.TIFF", "c")],
)
def test_names_of_results(file: str, name: str, tmp_path: Path) -> None:
    assert SlideFile(tmp_path / file).name == name


def test_a_folder_and_those_below(tmp_path: Path) -> None:
    known = [tmp_path / "b.SVS", tmp_path / "a.ndpi", tmp_path / "case 1" / "c.mrxs", tmp_path / "case 2" / "d.ome.tiff"]
    _touch(*known, tmp_path / "case 1" / "c" / "Data0000.dat", tmp_path / "notes.txt", tmp_path / ".hidden.svs")
    _touch(tmp_path / "old.isyntax", tmp_path / "case 2" / "label.png")
    found = list_slides(tmp_path)
    assert [slide.path for slide in found.slides] == sorted(known)
    assert found.passed_over == (str(tmp_path / "old.isyntax"), str(tmp_path / "case 2" / "label.png"))


def test_dicom_folders_are_slides_and_so_are_series_that_share_one(tmp_path: Path) -> None:
    picture = draw_picture(300, 200)
    write_dicom(tmp_path / "alone", picture, 0.5)
    shared = write_dicom(tmp_path / "shared", picture, 0.5)
    write_dicom(tmp_path / "guest", picture[:100], 0.5)
    for file in (tmp_path / "guest").iterdir():
        file.rename(shared / f"guest-{file.name}")
    (tmp_path / "guest").rmdir()
    found = [slide.path for slide in list_slides(tmp_path).slides]
    assert found == [tmp_path / "alone", shared / "guest-level-0.dcm", shared / "level-0.dcm"]


def test_copies_of_an_instance_with_other_pixels_are_slides_of_their_own(real_data: Path) -> None:
    found = list_slides(real_data / "small_dicom")
    names = {slide.name for slide in found.slides}
    assert {"sm_image", "sm_image_control", "sm_image_dots", "sm_image_jpegls", "small_dicom"} <= names
    assert found.passed_over == (str(real_data / "small_dicom" / "sm_annotations.dcm"),)


@pytest.mark.parametrize("column", ["slide", "path", "wsi", "WSI"])
@pytest.mark.parametrize("separator", [",", ";"])
def test_a_table(column: str, separator: str, tmp_path: Path) -> None:
    _touch(tmp_path / "slides" / "a.svs", tmp_path / "slides" / "b.svs", tmp_path / "c.svs")
    rows = [[column, "mpp", "patient"], ["slides/b.svs", "0.25", "p1"], ["slides/a.svs", "", ""]]
    rows.append([str(tmp_path / "c.svs"), "0.5", "p1"])
    (tmp_path / "table.csv").write_text("".join(separator.join(row) + "\n" for row in rows))
    assert list_slides(tmp_path / "table.csv").slides == (
        SlideFile(tmp_path / "slides" / "b.svs", 0.25, "p1"),
        SlideFile(tmp_path / "slides" / "a.svs", None, None),
        SlideFile(tmp_path / "c.svs", 0.5, "p1"),
    )


def test_a_spreadsheet(tmp_path: Path) -> None:
    _touch(tmp_path / "a.svs")
    pd.DataFrame({"Slide": ["a.svs"], "MPP": [0.25]}).to_excel(tmp_path / "table.xlsx", index=False)
    assert list_slides(tmp_path / "table.xlsx").slides == (SlideFile(tmp_path / "a.svs", 0.25, None),)


@pytest.mark.parametrize(
    ("text", "kind", "message"),
    [
        ("name\na.svs\n", OptionError, r"table\.csv has no column slide, path, wsi; its columns are name"),
        ("slide,mpp\na.svs,40x\n", OptionError, r"table\.csv, row 2: mpp=40x is no number of micrometres between"),
        ("slide,mpp\na.svs,0.5\na.svs,353\n", OptionError, "row 3: mpp=353"),
        ("slide,mpp\n,0.5\n", OptionError, "row 2: no slide is named"),
        ("slide\ngone.svs\n", SourceNotFoundError, r"row 2: .*gone\.svs does not exist"),
        ("slide\na.svs\na.svs\n", RequestError, "have the same name"),
        ("slide\n", RequestError, "names no slide"),
    ],
)
def test_tables_that_are_wrong(text: str, kind: type[Exception], message: str, tmp_path: Path) -> None:
    _touch(tmp_path / "a.svs")
    (tmp_path / "table.csv").write_text(text)
    with pytest.raises(kind, match=message):
        list_slides(tmp_path / "table.csv")


def test_names_that_meet(tmp_path: Path) -> None:
    _touch(tmp_path / "one" / "a.svs", tmp_path / "two" / "A.tif")
    with pytest.raises(RequestError, match=r"one/a\.svs and .*two/A\.tif have the same name, and so would their results"):
        list_slides(tmp_path)


def test_nothing_to_read(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError, match=r"gone: no such file or folder"):
        list_slides(tmp_path / "gone")
    _touch(tmp_path / "slide.isyntax")
    with pytest.raises(RequestError, match=r"names no slide \(.*slide\.isyntax\); known endings are .*\.svs"):
        list_slides(tmp_path)
