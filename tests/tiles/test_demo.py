import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from histo_mlflow.tiles.demo import draw_demo


def test_same_seed_same_pixels_other_seed_other_pixels() -> None:
    first, again, other = (draw_demo(n_tiles=18, tile_size_px=24, seed=seed) for seed in (0, 0, 1))
    assert first.fingerprint == again.fingerprint != other.fingerprint
    assert first.is_synthetic
    assert "synthetic" in first.source


def test_every_class_has_its_share_and_its_own_texture() -> None:
    tiles = draw_demo(n_tiles=45, tile_size_px=32)
    assert set(tiles.class_counts().values()) == {5}
    assert tiles.images.dtype == np.uint8
    assert tiles.images.std(axis=(1, 2, 3)).min() > 1


def test_mean_colour_says_little() -> None:
    """Chance is 1/9; what the network reaches is measured by benchmarks/demo_baselines.py."""
    tiles = draw_demo(n_tiles=270, tile_size_px=32)
    colours = tiles.images.mean(axis=(1, 2))
    model = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
    assert cross_val_score(model, colours, tiles.labels, cv=5).mean() < 0.4
