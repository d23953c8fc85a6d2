"""Hashes of the eight symmetries follow from one."""

import numpy as np
import pytest

from histo_mlflow.auditing.hashes import SYMMETRIES, Symmetry, coefficients, contrast, grey, pack
from tests.auditing.plants import texture


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_coefficients_of_a_symmetry_are_those_of_the_turned_tile(symmetry: Symmetry) -> None:
    tiles = texture(4)
    turned = coefficients(grey(np.ascontiguousarray(symmetry.of_tiles(tiles))))
    np.testing.assert_allclose(symmetry.of_coefficients(coefficients(grey(tiles))), turned, atol=1e-3)


def test_the_eight_symmetries_are_all_different_and_the_first_changes_nothing() -> None:
    tile = texture(1)
    views = {np.ascontiguousarray(symmetry.of_tiles(tile)).tobytes() for symmetry in SYMMETRIES}
    assert len(views) == 8
    assert (SYMMETRIES[0].of_tiles(tile) == tile).all()


def test_brightness_and_contrast_leave_the_hash_as_it_is() -> None:
    found = coefficients(grey(texture(6)))
    dimmed = found * 0.5
    dimmed[:, 0, 0] += 30
    assert (pack(found) == pack(dimmed)).all()
    np.testing.assert_allclose(contrast(dimmed), contrast(found) / 2, rtol=1e-5)
