import warnings
from pathlib import Path

import numpy as np
import pytest
from fontTools.fontBuilder import FontBuilder
from fontTools.pens.ttGlyphPen import TTGlyphPen
from matplotlib.figure import Figure
from matplotlib.font_manager import fontManager
from matplotlib.text import Text

from histo_mlflow.evaluation import plots
from histo_mlflow.evaluation.comparison_sections import draw_comparison
from histo_mlflow.evaluation.curves import draw_curves
from histo_mlflow.evaluation.findings import About, Details, Findings
from histo_mlflow.evaluation.gallery import Album, GalleryRow, Shown, caption, choose_errors
from histo_mlflow.evaluation.intervals import Estimate
from histo_mlflow.evaluation.lettering import KEY_FILE, label_classes, letter
from histo_mlflow.evaluation.metrics import evaluate_predictions
from histo_mlflow.evaluation.page import png_of
from histo_mlflow.evaluation.paired import compare_predictions
from histo_mlflow.evaluation.predictions import Predictions
from histo_mlflow.evaluation.report_sections import draw_report

# Private characters stand for a script of which no machine has a font but the one that a test installs.
UNKNOWN = ("\U000f0120\U000f0121", "\U000f0122", "\U000f0123\U000f0120")
FAMILY = "Histo Test Sans"


def _build_font(file: Path, letters: str, *, family: str, empty: str = "") -> None:
    """Write a font with a square for each of `letters`, and with a glyph that draws nothing for each of `empty`."""
    names = [".notdef", *(f"u{ord(each):04X}" for each in letters + empty)]
    pen = TTGlyphPen(None)
    for number, corner in enumerate([(100, 0), (100, 700), (800, 700), (800, 0)]):
        (pen.lineTo if number else pen.moveTo)(corner)
    pen.closePath()
    square, nothing = pen.glyph(), TTGlyphPen(None).glyph()
    builder = FontBuilder(1000, isTTF=True)
    builder.setupGlyphOrder(names)
    builder.setupCharacterMap({ord(each): f"u{ord(each):04X}" for each in letters + empty})
    builder.setupGlyf({name: nothing if name[1:] in {f"{ord(each):04X}" for each in empty} else square for name in names})
    builder.setupHorizontalMetrics(dict.fromkeys(names, (900, 0)))
    builder.setupHorizontalHeader(ascent=800, descent=-200)
    builder.setupNameTable({"familyName": family, "styleName": "Regular"})
    builder.setupOS2()
    builder.setupPost()
    builder.save(file)


@pytest.fixture
def installed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A font with the letters of `UNKNOWN`, behind three that only seem to have them."""
    monkeypatch.setattr(fontManager, "ttflist", list(fontManager.ttflist))
    letters = "".join(sorted(set("".join(UNKNOWN))))
    _build_font(tmp_path / "resort.ttf", letters, family="A Last Resort Sans")
    _build_font(tmp_path / "empty.ttf", "", family="A Sans of Nothing", empty=letters)
    _build_font(tmp_path / "some.ttf", letters[1], family="A Sans of Some")
    _build_font(tmp_path / "all.ttf", letters, family=FAMILY)
    for file in ("resort", "empty", "some", "all"):
        fontManager.addfont(tmp_path / f"{file}.ttf")


def _texts(picture: Figure) -> dict[str, list[str]]:
    return {text.get_text(): text.get_fontfamily() for text in picture.findobj(Text) if isinstance(text, Text)}


def _predictions(classes: tuple[str, ...]) -> Predictions:
    rng = np.random.default_rng(0)
    return Predictions(rng.integers(0, len(classes), 60), rng.dirichlet(np.ones(len(classes)), 60), classes)


def _about(source: str, *models: str) -> About:
    return About(source=source, fingerprint="f" * 64, models=models, selected="epoch 2", looks=1, is_synthetic=False)


def _pictures(classes: tuple[str, ...]) -> list[Figure]:
    predictions = _predictions(classes)
    tiles = np.zeros((60, 8, 8, 3), np.uint8)
    gallery = [
        GalleryRow(heading, tuple(Shown(tiles[row], None, caption(predictions, int(row), int(row))) for row in rows))
        for heading, rows in choose_errors(predictions)
    ]
    return [
        plots.draw_confusion(predictions.confusion, classes, title="a title"),
        plots.draw_roc_and_precision(predictions),
        plots.draw_calibration(predictions, None, other_label=""),
        plots.draw_differences(classes, [Estimate(0.1, 0.0, 0.2)] * len(classes)),
        plots.draw_sheet(gallery, classes),
    ]


def test_names_are_drawn_in_an_installed_font_that_has_all_their_letters(installed: None) -> None:
    assert label_classes(UNKNOWN).shown == UNKNOWN
    assert label_classes(UNKNOWN).key == ()
    for picture in _pictures(UNKNOWN):
        png_of(picture)  # a missing glyph warns, and a warning is an error here
        named = {text: fonts for text, fonts in _texts(picture).items() if set(text) & set("".join(UNKNOWN))}
        assert named
        assert all(fonts == ["sans-serif", FAMILY] for fonts in named.values()), named


def test_where_no_font_has_the_letters_classes_are_numbered_and_the_picture_says_so() -> None:
    labels = label_classes((*UNKNOWN, "TUM"))
    assert labels.shown == ("0", "1", "2", "3")
    assert labels.key == (("0", UNKNOWN[0]), ("1", UNKNOWN[1]), ("2", UNKNOWN[2]), ("3", "TUM"))
    for picture in _pictures((*UNKNOWN, "TUM")):
        png_of(picture)
        texts = " ".join(_texts(picture))
        assert "Classes are numbered" in texts
        assert not set(texts) & set("".join((*UNKNOWN, "�")))
        assert "TUM" not in texts, "by number or by name, not by both"


def test_names_that_can_be_drawn_need_no_key(tmp_path: Path) -> None:
    assert label_classes(("ADI", "Größe", "опухоль", "عربي")).key == ()
    assert not any("numbered" in text for picture in _pictures(("ADI", "TUM", "опухоль")) for text in _texts(picture))


def _write_report(folder: Path, classes: tuple[str, ...]) -> str:
    predictions = _predictions(classes)
    about = _about("/data/\U000f0120/tiles", "models:/m/1")
    gallery = [
        GalleryRow(heading, (Shown(np.zeros((8, 8, 3), np.uint8), None, caption(predictions, int(rows[0]), 7)),))
        for heading, rows in choose_errors(predictions)
    ]
    folder.mkdir()
    draw_report(folder, Findings(evaluate_predictions(predictions), np.arange(60), about, Details()), Album(gallery))
    return (folder / "report.html").read_text()


def test_the_page_has_names_in_the_fonts_of_the_browser_and_its_pictures_a_key(tmp_path: Path) -> None:
    page = _write_report(tmp_path / "unknown", UNKNOWN)
    for name in UNKNOWN:
        assert page.count(f"<bdi>{name}</bdi>") > 1, "in tables and in the key of the curves"
    assert f"{UNKNOWN[0]} called {UNKNOWN[1]}" in page, "headings of the page have names"
    written = (tmp_path / "unknown" / KEY_FILE).read_text()
    assert written == "".join(f"{number} = {name}\n" for number, name in enumerate(UNKNOWN))
    _write_report(tmp_path / "known", ("ADI", "TUM", "<b>"))
    assert not (tmp_path / "known" / KEY_FILE).exists()


def test_the_comparison_gives_the_key_too(tmp_path: Path) -> None:
    predictions = _predictions(UNKNOWN)
    about = _about("tiles", "a", "b")
    comparison = compare_predictions(predictions, predictions)
    draw_comparison(tmp_path, comparison, about, np.zeros((60, 8, 8, 3), np.uint8))
    assert f"<bdi>{UNKNOWN[0]}</bdi>" in (tmp_path / "comparison.html").read_text()
    assert (tmp_path / KEY_FILE).exists()


HISTORY = {f"{split}/{name}": [1.0, 0.5] for split in ("train", "val") for name in ("loss", "accuracy")}


@pytest.mark.parametrize(
    ("title", "shown"),
    [
        ("hold-out: /data/a$b_c^d$e\\frac", "hold-out: /data/a$b_c^d$e\\frac"),
        ("hold-out: /data/\U000f0120", "hold-out: /data/�"),
        ("hold-out: /data/\x1b[31m\u202e\udce9", "hold-out: /data/\\x1b[31m\\u202e\\udce9"),
        ("two\nlines", "two\nlines"),
    ],
)
def test_titles_are_drawn_as_they_are_or_without_what_no_font_has(title: str, shown: str) -> None:
    picture = draw_curves(HISTORY, aug_cutoff=1, best_epoch=2, title=title)
    png_of(picture)
    assert picture.get_suptitle() == shown
    assert not any(text.get_parse_math() for text in picture.findobj(Text) if isinstance(text, Text))


def test_class_names_are_no_formulas() -> None:
    for picture in _pictures(("a$b$", "c_d^e$", "$\\frac")):
        png_of(picture)
        assert any("a$b$" in text for text in _texts(picture))


def test_what_can_be_drawn_by_the_usual_font_has_no_other() -> None:
    picture = draw_curves(HISTORY, aug_cutoff=1, best_epoch=2, title="hold-out: /data/tiles")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        letter(picture)
    assert all(fonts == ["sans-serif"] for fonts in _texts(picture).values())
