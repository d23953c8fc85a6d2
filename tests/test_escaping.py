"""Names that want to be more than names, wherever they are written or shown."""

import os
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from mlflow import MlflowClient
from PIL import Image

from histo_mlflow.base.escaping import markdown, visible, visible_lines
from histo_mlflow.console import format_table, say, warn
from histo_mlflow.evaluation.findings import About, Details, Findings
from histo_mlflow.evaluation.metrics import Evaluation, evaluate_predictions
from histo_mlflow.evaluation.page import render
from histo_mlflow.evaluation.predictions import Predictions
from histo_mlflow.models.facts import ModelFacts
from histo_mlflow.pipeline.card import write_card
from histo_mlflow.tiles.open import open_tiles
from histo_mlflow.tracking.runs import open_run
from histo_mlflow.tracking.store import Store
from tests.conftest import Histo

HOSTILE = "a\x1b[2J\x07\r\u202egpj\u2066\x9bm\udce9|`<img src=x>`*b*\nError: all is lost"
UNFIT = re.compile(r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@given(st.text(st.characters(exclude_categories=())))
def test_what_is_visible_can_be_printed_on_one_line_and_plain_names_stay(text: str) -> None:
    for shown in (visible(text), visible_lines(text)):
        shown.encode()
        assert not UNFIT.search(shown)
        assert visible_lines(shown) == shown
    assert "\n" not in visible(text)


@pytest.mark.parametrize("name", ["TUM", "肿瘤", "ट्यूमर", "เนื้องอก", "عربي", "Größe", "😀", "/data/my tiles_v2 (new).npz"])
def test_plain_names_are_shown_as_they_are(name: str) -> None:
    assert visible(name) == name


@pytest.mark.parametrize(
    ("text", "escaped"),
    [
        ("/data/my_tiles.npz", "/data/my\\_tiles.npz"),
        ("a|b", "a\\|b"),
        ("`code` *b* [l](x) ~s~ #h", "\\`code\\` \\*b\\* \\[l\\](x) \\~s\\~ \\#h"),
        ("<b>&amp;", "&#60;b&#62;&#38;amp;"),
        ("http://x www.x.y a@b $x$", "http&#58;//x www&#46;x.y a&#64;b &#36;x&#36;"),
        ("models:/histo-b3/1", "models:/histo-b3/1"),
        ("a\n# b", "a\\\\n\\# b"),
    ],
)
def test_markdown_shows_a_name_and_obeys_nothing_of_it(text: str, escaped: str) -> None:
    assert markdown(text) == escaped


def test_the_terminal_obeys_no_name(capsys: pytest.CaptureFixture[str]) -> None:
    say(f"tiles: {visible(HOSTILE)}\nour second line")
    say(f"tiles: {HOSTILE}")
    warn(f"passed over: {HOSTILE}")
    said = capsys.readouterr()
    assert not UNFIT.search(said.out + said.err)
    assert "\\x1b[2J" in said.out
    assert "our second line\n" in said.out
    assert said.err.count("\n") == 1, "a warning is one line, whatever it names"


def test_a_table_has_its_own_lines_alone() -> None:
    table = format_table(["name", "n"], [[HOSTILE, "1"], ["TUM", "22"]])
    assert len(table.split("\n")) == 4
    assert len({len(line) for line in table.split("\n")}) == 1, "columns are aligned"
    assert not UNFIT.search(table)


def test_a_page_shows_what_a_name_hides() -> None:
    page = render("contents.html.j2", {"contents": [("one", HOSTILE)] * 4})
    page.encode()
    assert "&lt;img" in page
    assert "\\x1b[2J" in page
    assert "\\u202e" in page
    assert not UNFIT.search(page)


@pytest.fixture
def evaluation() -> Evaluation:
    rng = np.random.default_rng(0)
    return evaluate_predictions(Predictions(rng.integers(0, 2, 20), rng.dirichlet(np.ones(2), 20), (HOSTILE, "_b_")))


def test_a_model_card_obeys_no_name(evaluation: Evaluation) -> None:
    facts = ModelFacts(
        classes=(HOSTILE, "_b_"), tile_size_px=32, microns_per_pixel=0.5, preprocessing="none",
        weights_origin=HOSTILE, data_source=HOSTILE, data_fingerprint="f" * 64, is_synthetic=False, selected=HOSTILE,
        tiles_per_class={"training": [1, 2]},
    )  # fmt: skip
    plain = replace(facts, classes=("A", "B"), weights_origin="w", data_source="d", selected="s")

    def find(source: str) -> Findings:
        about = About(source=source, fingerprint="f", is_synthetic=False, models=("m",), looks=2)
        return Findings(evaluation, np.arange(20), about, Details())

    card = write_card(facts, {"val": find("t"), "test": find(HOSTILE)}, model_name="histo-b3")
    expected = write_card(plain, {"val": find("t"), "test": find("t")}, model_name="histo-b3")
    card.encode()
    assert not UNFIT.search(card)
    assert "<img" not in card.replace("```", "")[: card.index("## Use")]
    assert len(card.splitlines()) == len(expected.splitlines()), "no name begins a line"
    for line in (each for each in card.splitlines() if each.startswith("|")):
        assert len(re.findall(r"(?<!\\)\|", line)) in {4, 5}, "no name begins a cell"
    assert card.count("```") == 2
    assert "\\_b\\_" in card


def test_what_a_store_can_not_keep_is_spelt(store: Store) -> None:
    with open_run(store, "one", tags={"colour": HOSTILE}) as run:
        run.log_params({"data": HOSTILE})
    kept = store.client.get_run(run.id).data
    assert kept.tags["colour"] == visible_lines(HOSTILE)
    assert kept.params["data"] == visible(HOSTILE)


def _save_tile(file: Path, value: int) -> None:
    rng = np.random.default_rng(value)
    Image.fromarray(rng.integers(0, 255, (32, 32, 3), dtype=np.uint8)).save(file, "PNG")


@pytest.fixture
def hostile_folder(work: Path) -> Path:
    folder = work / "ti\x1b[31m|les\n\u202e"
    for name in ("ADI", "TUM"):
        (folder / name).mkdir(parents=True)
        for k in range(6):
            _save_tile(folder / name / f"{k}.png", k)
    return folder


def test_tiles_have_a_source_that_can_be_shown(hostile_folder: Path) -> None:
    assert open_tiles(str(hostile_folder)).source.endswith("ti\\x1b[31m|les\\n\\u202e")


def test_errors_are_one_line_that_no_file_name_can_alter(hostile_folder: Path, histo_here: Histo) -> None:
    for k in range(3):
        (hostile_folder / "ADI" / f"\x1b]0;title\x07\n{k}.png").write_text("no picture")
    done = histo_here("train", "--data", str(hostile_folder), "--weights", "none")
    assert done.returncode == 2
    assert done.stderr.count("\n") == 1
    assert "\\x1b]0;title\\x07" in done.stderr
    assert not UNFIT.search(done.stderr)
    listed = (Path.cwd() / "unreadable_tiles.txt").read_text()
    assert len(listed.splitlines()) == 3
    assert not UNFIT.search(listed)


@pytest.mark.slow
def test_a_training_on_a_hostile_folder_comes_to_its_end(hostile_folder: Path, histo: Histo) -> None:
    latin = os.fsdecode(b"caf\xe9")  # a name in an encoding that is not the system's
    moved = hostile_folder.rename(hostile_folder.with_name(hostile_folder.name + latin))
    done = histo("train", "--data", moved, "--weights", "none", "--epochs", "1", LC_ALL="C.UTF-8")
    assert done.returncode == 0, done.stderr
    assert not UNFIT.search(done.stdout + done.stderr)
    assert "could not be made" not in done.stderr
    version = MlflowClient().get_model_version("histo-b3", "1")
    assert "les\\\\n\\\\u202e" in version.description


@pytest.mark.slow
def test_a_terminal_of_another_encoding_is_no_reason_to_stop(hostile_folder: Path, histo: Histo) -> None:
    for name, other in (("ADI", "间质"), ("TUM", "肿瘤")):
        (hostile_folder / name).rename(hostile_folder / other)
    done = histo("train", "--data", hostile_folder, "--weights", "nowhere.safetensors", PYTHONIOENCODING="ascii")
    assert done.returncode == 2, done.stderr
    assert "nowhere.safetensors" in done.stderr
    assert "(\\u80bf\\u7624 6 \\u95f4\\u8d28 6)" in done.stdout
