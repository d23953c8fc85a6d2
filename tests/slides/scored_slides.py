"""Scored slides to be written: drawn from a seed, and of every odd kind for hypothesis."""

from collections.abc import Sequence

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from histo_mlflow.slides.places import Places
from histo_mlflow.slides.scored import ScoredSlide

NINE = ("ADI", "BACK", "DEB", "LYM", "MUC", "MUS", "NORM", "STR", "TUM")
ODD_NAMES = (
    "a b",
    "x, y",
    'say "so"',
    "100 %",
    "Tumor: Positive",
    "<&>",
    "a\nb",
    "Lymphozyten ä",
    "癌",
    "{0}%s",
    "prob_x",
    "not sure",
)


def lay(grid: NDArray[np.bool_], edge_px: int, stride: float, corner: tuple[int, int] = (0, 0)) -> Places:
    """Tiles where `grid` is true, as a grid over a slide has them: the first corners rounded, the strides not."""
    rows, columns = np.nonzero(grid)
    stride_px = edge_px * stride
    left, top = (
        np.rint(first + place * stride_px).astype(np.int64) for first, place in zip(corner, (columns, rows), strict=True)
    )
    return Places(left, top, edge_px, stride_px)


def draw_scored(
    grid: NDArray[np.bool_] | tuple[int, int],
    *,
    classes: Sequence[str] = NINE,
    edge_px: int = 224,
    stride: float = 1.0,
    seed: int = 0,
) -> ScoredSlide:
    """A slide of regions that hang together, with abstentions and spreads."""
    grid = np.ones(grid, bool) if isinstance(grid, tuple) else grid
    rng = np.random.default_rng(seed)
    places = lay(grid, edge_px, stride)
    waves = rng.normal(size=(len(classes), 3))
    steps = np.stack([places.left, places.top], axis=1) / max(places.stride_px, 1)
    logits = 4 * np.sin(steps @ waves[:, :2].T / 5 + 3 * waves[:, 2]) + rng.normal(size=(len(places), len(classes)))
    probabilities = np.exp(logits - logits.max(axis=1, keepdims=True))
    probabilities = (probabilities / probabilities.sum(axis=1, keepdims=True)).astype(np.float32)
    size = int(places.left.max(initial=0)) + edge_px + 7, int(places.top.max(initial=0)) + edge_px + 3
    abstained = probabilities.max(axis=1, initial=0) < 0.45 + 0.5 / len(classes)
    return ScoredSlide("a slide", size, 0.25, places, tuple(classes), probabilities, abstained, probabilities.std(axis=1))


@st.composite
def scored_slides(draw: st.DrawFn) -> ScoredSlide:
    """Grids with holes, of 0 tiles, with overlap, with gaps and over the slide's end; 1 to 9 classes."""
    n_rows, n_columns = draw(st.integers(0, 7)), draw(st.integers(1, 8))
    cells = draw(st.lists(st.booleans(), min_size=n_rows * n_columns, max_size=n_rows * n_columns))
    edge_px, stride = draw(st.integers(8, 60)), draw(st.sampled_from([1.0, 1.0, 0.5, 0.37, 0.25, 1.6]))
    corner = draw(st.integers(0, 40)), draw(st.integers(0, 40))
    places = lay(np.array(cells, bool).reshape(n_rows, n_columns), edge_px, stride, corner)
    n_classes, n_tiles = draw(st.integers(1, 9)), len(places)
    classes = tuple(draw(st.lists(st.sampled_from(ODD_NAMES), min_size=n_classes, max_size=n_classes, unique=True)))
    rng = np.random.default_rng(draw(st.integers(0, 9)))
    probabilities = rng.dirichlet(np.full(n_classes, 0.5), n_tiles).astype(np.float32).reshape(n_tiles, n_classes)
    # Tiles may reach over the end of a slide, nearly wholly.
    size = [
        max(1, int(axis.max(initial=0)) + edge_px - draw(st.integers(0, edge_px - 1))) for axis in (places.left, places.top)
    ]
    return ScoredSlide(
        name=draw(st.sampled_from(["a slide", "S.1-2 ä", "a\udc80b", "x" * 80])),
        size_px=(size[0], size[1]),
        microns_per_pixel=draw(st.sampled_from([0.2525, 0.5, 1.0])),
        places=places,
        classes=classes,
        probabilities=probabilities,
        abstained=draw(st.sampled_from([None, rng.random(n_tiles) < 0.3])),
        spread=draw(st.sampled_from([None, rng.random(n_tiles).astype(np.float32)])),
    )
