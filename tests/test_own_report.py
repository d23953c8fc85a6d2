"""`histo_mlflow.report` makes the page for anybody's model, from arrays."""

from pathlib import Path

import numpy as np
import pytest

import histo_mlflow
from histo_mlflow.errors import RequestError
from histo_mlflow.evaluation.verdict import Sign

CLASSES = ("normal", "tumour")
LABELS = np.arange(200) % 2


def _said(share: float) -> np.ndarray:
    is_right = np.arange(200) < 200 * share
    return np.where((np.eye(2)[LABELS] > 0) == is_right[:, None], 0.9, 0.1)


@pytest.fixture
def images() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (200, 16, 16, 3), dtype=np.uint8)


def test_a_page_is_made_of_labels_probabilities_and_images(tmp_path: Path, images: np.ndarray) -> None:
    labels = np.array(CLASSES)[LABELS]
    found = histo_mlflow.report(
        labels, _said(0.9), images, folder=tmp_path / "mine", model="VGG of our group",
        names=[f"slide 3/{k}.png" for k in range(200)], baselines={"mean RGB": _said(0.6)},
    )  # fmt: skip
    assert found.page == tmp_path / "mine" / "report.html"
    assert found.verdict.sign is Sign.GOOD
    assert "of colour alone (mean RGB: 0.600)" in found.verdict.sentence
    page = found.page.read_text()
    for words in ("VGG of our group", "Examples of each class", "tumour called normal", "slide 3/<wbr>"):
        assert words in page
    assert page.count("not stated") >= 3, "how it was selected, when it was scored, how often the set was seen"
    assert (tmp_path / "mine" / "errors.csv").exists()
    assert found.verdict.sentence in found._repr_html_()


def test_without_images_the_page_says_what_it_can(tmp_path: Path) -> None:
    found = histo_mlflow.report(labels=LABELS, probabilities=_said(0.5), classes=CLASSES, folder=tmp_path)
    assert found.verdict.sign is Sign.BAD
    assert "Examples of each class" not in found.page.read_text()
    assert "The tiles were not at hand" in found.page.read_text()


@pytest.mark.parametrize(
    ("more", "reason"),
    [
        ({"images": np.zeros((3, 8, 8, 3), np.uint8)}, "there are 3 images for 200 labels"),
        ({"classes": ("a", "b", "c")}, r"\(n_tiles, 3\) is needed"),
        ({"colour": 1}, "report takes no colour; known are labels probabilities images"),
        ({"names": ["a"]}, r"names have shape \(1,\) for 200 tiles"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(tmp_path: Path, more: dict[str, object], reason: str) -> None:
    with pytest.raises(RequestError, match=reason):
        histo_mlflow.report(LABELS, _said(0.9), folder=tmp_path, **more)
    with pytest.raises(RequestError, match="labels hold muscle, classes are normal tumour"):
        histo_mlflow.report(np.array(["normal", "muscle"]), np.eye(2), classes=CLASSES, folder=tmp_path)
