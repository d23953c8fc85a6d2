"""Tiles with planted faults are found, and sound ones are not accused."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from histo_mlflow.auditing import compression, damage
from histo_mlflow.auditing.checks import find_all, look_at
from histo_mlflow.auditing.finding import CLEAR
from histo_mlflow.tiles.open import open_tiles
from tests.auditing.plants import FAULTS, as_tiles, stored_anew, texture

_OF_A_KIND = 6


def _accused(images: np.ndarray) -> dict[str, set[int]]:
    findings = find_all(look_at(as_tiles(images), checks=[damage.CHECK]), [damage.CHECK])
    return {each.kind: set(each.rows.tolist()) for each in findings}


def _check(images: np.ndarray) -> None:
    """Plant each fault in some tiles of their own: all are found, and no other tile is accused that was not before."""
    before, images, planted = _accused(images), images.copy(), {}
    rows = np.random.default_rng(0).permutation(len(images))
    for k, (kind, harm) in enumerate(FAULTS.items()):
        planted[kind] = set(rows[k * _OF_A_KIND : (k + 1) * _OF_A_KIND].tolist())
        for row in planted[kind]:
            images[row] = harm(images[row])
    harmed, found = set().union(*planted.values()), _accused(images)
    for kind, of_kind in planted.items():
        assert of_kind <= found[kind], kind
        assert found[kind] - before[kind] <= harmed, kind
    assert sum(map(len, before.values())) <= 1


def test_faults_of_real_tiles_are_found_and_sound_tiles_are_not_accused(real_data: Path, work: Path) -> None:
    sets = [open_tiles(real_data / name).images for name in ("crc5/train", "glas_tiles", "crc_val_he_7k_47")]
    images = np.concatenate([np.asarray(each[:: max(1, len(each) // 200)]) for each in sets])
    is_background = (images.max(axis=3) == 255).mean(axis=(1, 2)) > 0.4  # of which a whole class is, but not here
    _check(images[(images.std(axis=(1, 2, 3)) > 15) & ~is_background])


@pytest.mark.parametrize("name", ["crc5/train", "crc5/test", "crc_val_he_7k_47", "glas_tiles", "breakhis_patients"])
def test_real_sets_have_no_fault_that_they_do_not_have(real_data: Path, work: Path, name: str) -> None:
    """What was looked at: a blurred tile of crc5, blank and blurred ones of GlaS."""
    subject = look_at(open_tiles(real_data / name), checks=[damage.CHECK])
    named = {str(subject.names[row]) for each in find_all(subject, [damage.CHECK]) for row in each.rows}
    known = {"V/image_V_273.jpg"} | {f"malignant/p07_testA_24_x448_y{y}.jpg" for y in (0, 224)}
    known |= {f"benign/p04_train_67_x{x}_y{y}.jpg" for x, y in ((0, 0), (0, 224), (224, 0))}
    known |= {"benign/p04_testA_7_x0_y0.jpg", "benign/p09_testA_11_x448_y224.jpg"}
    assert named <= known


def test_textures_with_a_fault_are_found_too() -> None:
    images = texture(12, size=96)
    images[3], images[5] = FAULTS["cut_tiles"](images[3]), FAULTS["coarse_tiles"](images[5])
    found = {
        each.kind: each.rows.tolist() for each in find_all(look_at(as_tiles(images), checks=[damage.CHECK]), [damage.CHECK])
    }
    assert (found["cut_tiles"], found["coarse_tiles"]) == ([3], [5])


def test_blank_tiles_are_no_fault_where_a_class_is_of_them() -> None:
    images, labels = texture(40), np.repeat([0, 1], 20)
    images[20:35] = FAULTS["blank_tiles"](images[20:35])
    images[2] = FAULTS["blank_tiles"](images[2])
    blank = next(
        each
        for each in find_all(look_at(as_tiles(images, labels), checks=[damage.CHECK]), [damage.CHECK])
        if each.kind == "blank_tiles"
    )
    assert blank.rows.tolist() == [2]


def test_a_set_enlarged_from_smaller_tiles_is_recognised(real_data: Path, work: Path) -> None:
    images = np.asarray(open_tiles(real_data / "crc5/train").images[::40])
    checks = [damage.CHECK, compression.CHECK]

    def shrunk_and_enlarged(size: int) -> np.ndarray:
        small = [cv2.resize(tile, (size, size), interpolation=cv2.INTER_AREA) for tile in images]
        return np.stack([cv2.resize(tile, (224, 224), interpolation=cv2.INTER_CUBIC) for tile in small])

    for size, kind in ((150, "resized_data"), (28, "soft_set")):
        found = {each.kind: each for each in find_all(look_at(as_tiles(shrunk_and_enlarged(size)), checks=checks), checks)}
        assert found[kind].severity != CLEAR, size
    found = {each.kind: each for each in find_all(look_at(as_tiles(images), checks=checks), checks)}
    assert {found[kind].severity for kind in ("resized_data", "soft_set")} == {CLEAR}


def test_classes_that_were_stored_differently_are_told(tmp_path: Path) -> None:
    for name, quality in (("a", 95), ("b", 40)):
        (tmp_path / name).mkdir()
        for k, tile in enumerate(texture(8, size=96, seed=len(name + str(quality)))):
            image = cv2.cvtColor(tile, cv2.COLOR_RGB2BGR)
            cv2.imwrite(str(tmp_path / name / f"{k}.jpg"), image, [cv2.IMWRITE_JPEG_QUALITY, quality])
    checks = [damage.CHECK, compression.CHECK]
    found = {each.kind: each for each in find_all(look_at(open_tiles(tmp_path), checks=checks), checks)}
    assert found["jpeg_by_class"].figures["quality_spread"] == pytest.approx(55, abs=1)
    assert found["jpeg_by_class"].severity == "doubtful"


def test_strongly_compressed_tiles_leave_traces_of_blocks() -> None:
    plain, checks = texture(12, size=96), [damage.CHECK, compression.CHECK]
    traces = [
        next(each for each in find_all(look_at(as_tiles(images), checks=checks), checks) if each.kind == "jpeg_by_class")
        for images in (plain, np.stack([stored_anew(tile, 20) for tile in plain]))
    ]
    assert traces[1].figures["blockiness_min"] > 2 * traces[0].figures["blockiness_max"]
