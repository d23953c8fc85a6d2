"""Real slides through a real model, against the plain and slow way: each tile read at level 0 and resized by PIL."""

from contextlib import chdir
from pathlib import Path

import mlflow
import numpy as np
import openslide
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

import histo_mlflow
from histo_mlflow.learning.compute import Compute
from histo_mlflow.learning.infer import infer, probabilities_of
from histo_mlflow.models.features import ALL_VIEWS
from histo_mlflow.models.model import Model
from histo_mlflow.pipeline.inputs import load_model
from histo_mlflow.slides.places import Places
from histo_mlflow.slides.tile_table import read_tile_table
from histo_mlflow.tracking.store import read_store
from tests.conftest import Histo, copy_store

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("work")]

TILES_PER_CLASS = 60
CPU = Compute(torch.device("cpu"), is_bf16=False)


@pytest.fixture(scope="module")
def store_template(real_data: Path, store_template: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A store with a head on lite0 in Production, that has learnt from some colorectal tiles; its scale is not stated."""
    folder = tmp_path_factory.mktemp("crc5")
    for source in (real_data / "crc5" / "train").iterdir():
        kept = folder / "tiles" / source.name
        kept.mkdir(parents=True)
        for file in sorted(source.iterdir())[:TILES_PER_CLASS]:
            (kept / file.name).symlink_to(file)
    copy_store(store_template, folder)
    with pytest.MonkeyPatch.context() as patch, chdir(folder):
        patch.setenv("HISTO_CACHE_DIR", str(folder / "cache"))
        patch.setenv("HISTO_JOURNAL_DIR", str(folder / "journal"))
        mlflow.set_tracking_uri(f"sqlite:///{folder / 'mlflow.db'}")
        histo_mlflow.train(data="tiles", backbone="lite0", trainable="head", augment="none", calibration="temperature")
    return folder / "mlflow.db"


def _slowly(slide: Path, places: Places, size_px: int) -> NDArray[np.uint8]:
    with openslide.OpenSlide(slide) as opened:
        edge = places.edge_px
        tiles = []
        for left, top in zip(places.left.tolist(), places.top.tolist(), strict=True):
            read = opened.read_region((left, top), 0, (edge, edge))
            white = Image.new("RGBA", read.size, "white")
            tiles.append(
                np.asarray(Image.alpha_composite(white, read).convert("RGB").resize((size_px, size_px), Image.BICUBIC))
            )
    return np.stack(tiles)


def _model() -> Model:
    return load_model(read_store(), "models:/histo-b3/Production", CPU.device)


@pytest.mark.parametrize("microns", [0.5, 0.83])
def test_labels_and_probabilities_are_those_of_the_plain_way(real_data: Path, histo_here: Histo, microns: float) -> None:
    slide = real_data / "cmu-1-small-region.svs"
    done = histo_here("slide", "--slides", str(slide), "--output", "scored", "--model-mpp", str(microns), "--stride", "0.5")
    assert done.returncode == 0, done.stderr
    said, model = read_tile_table(Path("scored/cmu-1-small-region.csv"), stride_px=None), _model()
    assert len(said.places) > 40
    expected = probabilities_of(infer(model.folded, _slowly(slide, said.places, model.facts.tile_size_px), compute=CPU))
    same = said.probabilities.argmax(axis=1) == expected.argmax(axis=1)
    assert same.mean() >= 0.995
    assert np.abs(said.probabilities - expected).max() <= 0.01


def test_eight_views_are_the_mean_of_what_each_is_called(real_data: Path, histo_here: Histo) -> None:
    slide = real_data / "cmu-1-small-region.svs"
    asked = ("slide", "--slides", str(slide), "--output", "scored", "--model-mpp", "1.0")
    assert histo_here(*asked, "--views", "8").returncode == 0
    said, model = read_tile_table(Path("scored/cmu-1-small-region.csv")), _model()
    tiles = torch.from_numpy(_slowly(slide, said.places, model.facts.tile_size_px))
    each = np.stack([probabilities_of(infer(model.folded, view.of(tiles).numpy(), compute=CPU)) for view in ALL_VIEWS])
    mean = each.mean(axis=0)
    np.testing.assert_allclose(said.probabilities, mean, atol=0.01)
    called = said.probabilities.argmax(axis=1)
    assert said.spread is not None
    np.testing.assert_allclose(said.spread, each.std(axis=0)[np.arange(len(called)), called], atol=0.01)
    assert said.spread.max() > 0.02


def test_other_runtimes_say_the_same(real_data: Path, histo_here: Histo) -> None:
    pytest.importorskip("onnxruntime")
    slide = real_data / "cmu-1-small-region.svs"
    asked = ("slide", "--slides", str(slide), "--model-mpp", "1.0", "--output")
    assert histo_here(*asked, "torch").returncode == 0
    expected = read_tile_table(Path("torch/cmu-1-small-region.csv")).probabilities
    for runtime in ("onnx", "openvino"):
        done = histo_here(*asked, runtime, "--runtime", runtime)
        assert done.returncode == 0, done.stderr
        np.testing.assert_allclose(
            read_tile_table(Path(f"{runtime}/cmu-1-small-region.csv")).probabilities, expected, atol=1e-3
        )


def test_a_whole_section_with_blank_glass_and_ink(real_data: Path, histo: Histo) -> None:
    slide = real_data / "polyp_section" / "section1.tif"
    done = histo("slide", "--slides", slide, "--output", "scored", "--model-mpp", "1.0")
    assert done.returncode == 1
    assert "does not state the width of its pixels; give it in micrometres: --mpp 0.25" in done.stderr
    done = histo("slide", "--slides", slide, "--output", "scored", "--mpp", "0.25", "--model-mpp", "1.0")
    assert done.returncode == 0, done.stderr
    said = read_tile_table(Path("scored/section1.csv"))
    assert 150 < len(said.places) < 250  # of 448 that cover the slide
    assert Path("scored/section1.png").stat().st_size > 10_000
