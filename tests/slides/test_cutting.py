"""Tiles are of the class of the region that they lie in, by their exact share, and of one alone."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import shapely
from hypothesis import given, settings
from hypothesis import strategies as st

from histo_mlflow.errors import AnnotationError
from histo_mlflow.slides.annotations import IGNORE, Annotations, Region
from histo_mlflow.slides.areas import shares_inside
from histo_mlflow.slides.cutting import LITTLE_TISSUE, SURPLUS, TWO_CLASSES, Cut, Ground, areas_of, check_on_slide, choose_tiles
from histo_mlflow.slides.options import UNANNOTATED, CutOptions
from histo_mlflow.slides.places import Places
from histo_mlflow.slides.tissue import Tissue

_EDGE = 10
_ALL_TISSUE = Tissue(np.ones((1, 1), bool), 1000.0)


def _grid(n_columns: int = 10, n_rows: int = 10, stride: float = 1.0) -> Places:
    steps = np.rint(np.arange(int(n_columns / stride)) * stride * _EDGE).astype(np.int64)
    left, top = np.meshgrid(steps, np.rint(np.arange(int(n_rows / stride)) * stride * _EDGE).astype(np.int64))
    return Places(left.ravel(), top.ravel(), _EDGE, stride * _EDGE)


def _cut(
    areas: dict[str, shapely.Geometry],
    *,
    tissue: Tissue = _ALL_TISSUE,
    grid: Places | None = None,
    seed: int = 0,
    **rules: object,
) -> Cut:
    ground = Ground((100, 100), areas, tissue)
    generator = np.random.default_rng(seed)
    return choose_tiles(grid or _grid(), ground, CutOptions(**rules), least_tissue=0.5, generator=generator)  # type: ignore[arg-type]


def _taken(cut: Cut) -> dict[tuple[int, int], str]:
    places = zip(cut.places.left.tolist(), cut.places.top.tolist(), strict=True)
    return dict(zip(places, cut.classes.tolist(), strict=True))


def test_shares_are_exact() -> None:
    triangle = shapely.Polygon([(0, 0), (30, 0), (0, 30)])
    shares = shares_inside(triangle, _grid(3, 3))
    np.testing.assert_allclose(shares.reshape(3, 3), [[1, 1, 0.5], [1, 0.5, 0], [0.5, 0, 0]], atol=1e-12)


def test_shares_are_those_of_each_square_alone() -> None:
    generator = np.random.default_rng(0)
    angle = np.linspace(0, 2 * np.pi, 500, endpoint=False)
    radius = 40 + 5 * np.sin(9 * angle) + generator.uniform(-0.3, 0.3, 500)
    outline = np.column_stack([50 + radius * np.cos(angle), 50 + radius * np.sin(angle)])
    region = shapely.Polygon(outline, [shapely.get_coordinates(shapely.Point(45, 55).buffer(12))])
    grid = _grid(stride=0.3)
    squares = shapely.box(grid.left, grid.top, grid.left + _EDGE, grid.top + _EDGE)
    alone = shapely.area(shapely.intersection(region, squares)) / _EDGE**2
    np.testing.assert_allclose(shares_inside(region, grid), alone, atol=1e-12)


@pytest.mark.parametrize(("width", "is_taken"), [(9.0, True), (8.99, False), (10.0, True)])
def test_a_tile_is_taken_if_enough_of_it_is_inside(width: float, is_taken: bool) -> None:
    assert _taken(_cut({"A": shapely.box(0, 0, width, 10)})) == ({(0, 0): "A"} if is_taken else {})


def test_a_tile_all_inside_is_taken_where_all_is_asked() -> None:
    third = shapely.box(10, 10, 20 + 1 / 3, 20)
    assert _taken(_cut({"A": third}, inside=1.0)) == {(10, 10): "A"}


def test_regions_that_touch_share_no_tile_and_are_no_conflict() -> None:
    cut = _cut({"A": shapely.box(0, 0, 25, 10), "B": shapely.box(25, 0, 50, 10)})
    assert _taken(cut) == {(0, 0): "A", (10, 0): "A", (30, 0): "B", (40, 0): "B"}
    assert not len(cut.conflicts)


def test_what_lies_in_two_classes_is_left_out_and_named() -> None:
    cut = _cut({"A": shapely.box(0, 0, 50, 20), "B": shapely.box(30, 0, 50.5, 10), "C": shapely.box(20, 18.9, 30, 20)})
    assert (cut.conflicts.left.tolist(), cut.conflicts.top.tolist()) == ([30, 40, 20], [0, 0, 10])
    assert cut.pairs == {("A", "B"): 2, ("A", "C"): 1}
    assert cut.left_out == {("A", TWO_CLASSES): 3, ("B", TWO_CLASSES): 2, ("C", TWO_CLASSES): 1}
    assert Counter(cut.classes.tolist()) == {"A": 7}


def test_a_little_of_another_class_is_no_conflict() -> None:
    cut = _cut({"A": shapely.box(0, 0, 20, 10), "B": shapely.box(19.5, 0, 40, 10)})
    assert _taken(cut) == {(0, 0): "A", (10, 0): "A", (20, 0): "B", (30, 0): "B"}


def test_nothing_is_cut_from_what_is_to_be_ignored() -> None:
    regions = [Region("Tumor", shapely.box(0, 0, 40, 10), 1), Region("Ignore*", shapely.box(10, 0, 20, 10), 2)]
    regions.append(Region("Necrosis", shapely.box(30, 0, 60, 10), 3))
    areas = areas_of(Annotations(tuple(regions), ()), {IGNORE: None, "Necrosis": None, "Tumor": "TUM"})
    cut = _cut(areas)
    assert _taken(cut) == {(0, 0): "TUM", (20, 0): "TUM"}
    assert cut.pairs == {(IGNORE, "TUM"): 2}
    assert cut.left_out == {("TUM", TWO_CLASSES): 2}


def test_tiles_over_the_end_of_the_slide_are_never_taken() -> None:
    grid = Places(np.array([-5, 0, 90, 91, 0]), np.array([0, 0, 90, 0, 95]), _EDGE, _EDGE)
    assert _taken(_cut({"A": shapely.box(-50, -50, 200, 200)}, grid=grid)) == {(0, 0): "A", (90, 90): "A"}


def test_tiles_without_tissue_are_left_out_but_of_classes_that_have_none() -> None:
    mask = np.zeros((10, 10), bool)
    mask[:, :3] = True
    areas = {"A": shapely.box(0, 0, 50, 10), "fat": shapely.box(50, 0, 100, 10)}
    cut = _cut(areas, tissue=Tissue(mask, 10.0), without_tissue="fat")
    assert Counter(cut.classes.tolist()) == {"A": 3, "fat": 5}
    assert cut.left_out == {("A", LITTLE_TISSUE): 2}


def test_background_touches_no_region_and_is_no_larger_than_the_largest_class() -> None:
    mask = np.zeros((10, 10), bool)
    mask[:5] = True
    areas = {"A": shapely.box(0, 0, 45, 10), "B": shapely.box(0, 20, 20, 30)}
    glass = _cut(areas, tissue=Tissue(mask, 10.0), background="BACK")
    assert Counter(glass.classes.tolist()) == {"A": 4, "B": 2, "BACK": 4}
    assert glass.left_out == {("BACK", SURPLUS): 46}
    assert glass.places.top[glass.classes == "BACK"].min() >= 50
    rest = _cut(areas, tissue=Tissue(mask, 10.0), background="other", background_from=UNANNOTATED, at_most=100)
    others = [place for place, name in _taken(rest).items() if name == "other"]
    assert len(others) == 50 - 5 - 2, "a tile that touches a region is none"
    assert (40, 0) not in others
    named = _cut(areas, tissue=Tissue(mask, 10.0), background="B")
    assert Counter(named.classes.tolist()) == {"A": 4, "B": 4}


def test_classes_are_balanced_by_a_draw_that_the_seed_decides() -> None:
    areas = {"A": shapely.box(0, 0, 100, 50), "B": shapely.box(0, 60, 30, 70)}
    first, again, other = (_cut(areas, at_most=5, seed=seed) for seed in (1, 1, 2))
    assert Counter(first.classes.tolist()) == {"A": 5, "B": 3}
    assert first.left_out == {("A", SURPLUS): 45}
    assert _taken(first) == _taken(again) != _taken(other)
    assert (np.diff(first.places.top) >= 0).all(), "row by row"


def test_a_tile_knows_its_region() -> None:
    both = shapely.union_all([shapely.box(0, 0, 30, 10), shapely.box(35.5, 0, 60, 10)])
    cut = _cut({"A": both}, background="back", tissue=Tissue(np.zeros((1, 1), bool), 1000.0), without_tissue="A")
    by_place = dict(zip(_taken(cut), cut.regions.tolist(), strict=True))
    assert len({by_place[left, 0] for left in (0, 10, 20)}) == 1
    assert by_place[0, 0] != by_place[40, 0] == by_place[50, 0]
    assert {name for name in by_place.values() if name.startswith("back")} <= {
        f"back at {column},{row}" for column in (0, 1) for row in (0, 1)
    }


def test_annotations_of_another_slide_are_refused() -> None:
    regions = [Region("A", shapely.box(0, 0, 50, 50), 1), Region("B", shapely.box(40, 90, 60, 120), 7)]
    with pytest.raises(AnnotationError, match=r"a.json, feature 7 \(B\) lies at x 40 to 60, y 90 to 120, outside of s.svs"):
        check_on_slide(Annotations(tuple(regions), ()), (100, 100), file=Path("a.json"), slide=Path("s.svs"))
    check_on_slide(Annotations(tuple(regions), ()), (100, 110), file=Path("a.json"), slide=Path("s.svs"))


_COORDINATE = st.floats(-20, 120).map(lambda value: round(value, 6))  # as annotations are read
_POINT = st.tuples(_COORDINATE, _COORDINATE)
_SHAPE = st.lists(_POINT, min_size=3, max_size=8).map(lambda points: shapely.MultiPoint(points).convex_hull)
_AREA = st.lists(_SHAPE, min_size=1, max_size=3).map(shapely.union_all)
_AREAS = st.dictionaries(st.sampled_from(["A", "B", "C", IGNORE]), _AREA.filter(lambda area: area.area > 1), max_size=4)


@settings(max_examples=60)
@given(areas=_AREAS, inside=st.floats(0.51, 1), stride=st.sampled_from([0.4, 1.0]), at_most=st.integers(0, 4))
def test_every_tile_is_of_one_class_by_its_share(
    areas: dict[str, shapely.Geometry], inside: float, stride: float, at_most: int
) -> None:
    grid = _grid(stride=stride)
    cut = _cut(dict(areas), grid=grid, inside=inside, at_most=at_most)
    squares = shapely.box(cut.places.left, cut.places.top, cut.places.left + _EDGE, cut.places.top + _EDGE)
    for square, name in zip(squares, cut.classes.tolist(), strict=True):
        own = shapely.intersection(areas[name], square)
        assert name != IGNORE
        assert own.area >= (inside - 1e-6) * _EDGE**2
        for other in areas.keys() - {name}:
            alone = shapely.difference(own, areas[other]).area
            assert alone >= (inside - 1e-6) * _EDGE**2
    assert len(set(_taken(cut))) == len(cut.places), "no square is taken twice"
    assert not at_most or max(Counter(cut.classes.tolist()).values(), default=0) <= at_most
    taken = {(left, top) for left, top in _taken(cut)}
    for left, top in zip(cut.conflicts.left.tolist(), cut.conflicts.top.tolist(), strict=True):
        square = shapely.box(left, top, left + _EDGE, top + _EDGE)
        assert (left, top) not in taken
        assert sum(shapely.intersection(area, square).area > 0 for area in areas.values()) >= 2
    if not at_most:
        for left, top in zip(grid.left.tolist(), grid.top.tolist(), strict=True):
            square = shapely.box(left, top, left + _EDGE, top + _EDGE)
            if any(square.within(area) and not area_of_others(areas, name).intersects(square) for name, area in areas.items()):
                is_ignored = IGNORE in areas and square.within(areas[IGNORE])
                assert ((left, top) in taken) != (is_ignored or left + _EDGE > 100 or top + _EDGE > 100)


def area_of_others(areas: dict[str, shapely.Geometry], name: str) -> shapely.Geometry:
    return shapely.union_all([area for other, area in areas.items() if other != name])
