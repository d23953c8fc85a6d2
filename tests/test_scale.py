"""A model is not asked by mistake about tiles of another scale, and a scale that nobody has given is not made up."""

import json
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from PIL import Image

from tests.colour_reader import CLASSES, register
from tests.conftest import Histo

SIZE_PX = 32  # of the model, which has learnt at 0.5 um: 16 um of tissue


@pytest.fixture
def tiles(work: Path) -> Path:
    """30 tiles of 32 px whose middle of 16 px has the colour of their class, with a red border that outweighs it."""
    images = np.zeros((30, SIZE_PX, SIZE_PX, 3), np.uint8)
    images[..., 0] = 200
    labels = np.arange(30) % 3
    for image, label in zip(images, labels, strict=True):
        image[8:24, 8:24] = 0
        image[8:24, 8:24, label] = 250
    np.savez("tiles.npz", data=images, labels=labels, classes=CLASSES)
    Path("pngs").mkdir()
    for k, image in enumerate(images):
        Image.fromarray(image).save(f"pngs/{k:02d}.png")
    return work / "tiles.npz"


def _accuracy(run: str, split: str = "test") -> float:
    (file,) = Path("mlruns").glob(f"*/{run}*/artifacts/evaluation/{split}/summary.json")
    return float(json.loads(file.read_text())["accuracy"]["value"])


@pytest.mark.usefixtures("tiles")
def test_evaluate_refuses_another_scale_or_takes_the_middle_of_each_tile(histo_here: Histo) -> None:
    register(0.0, microns_per_pixel=0.5)
    asked = ["evaluate", "--model", "models:/histo-b3/1", "--data", "tiles.npz", "--robustness", "0"]
    done = histo_here(*asked, "--microns-per-pixel", "1")
    assert done.returncode == 2
    assert (
        "a tile shows 32 um of tissue, those that models:/histo-b3/1 has learnt from 16 um; give --rescale true" in done.stderr
    )
    for more, accuracy in (
        ([], 1 / 3),  # not given: as ever
        (["--microns-per-pixel", "0.54"], 1 / 3),  # 8 % apart
        (["--microns-per-pixel", "1", "--rescale"], 1.0),
    ):
        done = histo_here(*asked, *more)
        assert done.returncode == 0, done.stderr
        (run,) = re.findall(r"^run (\w+):", done.stdout, flags=re.MULTILINE)
        assert _accuracy(run) == pytest.approx(accuracy), more
    done = histo_here(*asked, "--microns-per-pixel", "0.25", "--rescale")
    assert done.returncode == 2
    assert "8 um of tissue" in done.stderr
    assert "cut tiles of 64 px or more" in done.stderr


@pytest.mark.usefixtures("tiles")
def test_predict_looks_at_each_image_as_large_as_it_is(histo_here: Histo) -> None:
    register(0.0, microns_per_pixel=0.5)
    done = histo_here("predict", "--data", "pngs", "--microns-per-pixel", "1")
    assert done.returncode == 2
    assert "give --rescale true" in done.stderr
    assert not Path("predictions.csv").exists()
    assert histo_here("predict", "--data", "pngs", "--microns-per-pixel", "1", "--rescale", "true").returncode == 0
    assert pd.read_csv("predictions.csv").label.tolist() == [CLASSES[k % 3] for k in range(30)]
    assert histo_here("predict", "--data", "pngs").returncode == 0
    assert set(pd.read_csv("predictions.csv").label) == {"red"}


@pytest.mark.usefixtures("tiles")
def test_two_models_are_compared_each_at_its_own_scale(histo_here: Histo) -> None:
    register(0.0, microns_per_pixel=1.0)
    register(0.0, microns_per_pixel=0.5)
    asked = ["compare", "models:/histo-b3/1", "models:/histo-b3/2", "--data", "tiles.npz", "--microns-per-pixel", "1"]
    assert "those that models:/histo-b3/2 has learnt from 16 um" in histo_here(*asked).stderr
    done = histo_here(*asked, "--rescale", "true")
    assert done.returncode == 0, done.stderr
    assert "only A right: 0 tiles, only B right: 20" in done.stdout


@pytest.mark.usefixtures("tiles")
def test_the_gate_scores_nothing_at_another_scale(histo_here: Histo) -> None:
    register(0.0, microns_per_pixel=0.5)
    register(0.0, microns_per_pixel=0.5)
    done = histo_here("promote", "--version", "2", "--test-data", "tiles.npz", "--microns-per-pixel", "1")
    assert done.returncode == 1
    assert "REFUSED" in done.stderr
    assert "give --rescale true to take the middle of each, or correct microns_per_pixel; nothing was scored" in done.stderr
    done = histo_here("promote", "--version", "2", "--test-data", "tiles.npz", "--microns-per-pixel", "1", "--rescale")
    assert "rescale" not in done.stderr
    assert "B - A" not in done.stderr
