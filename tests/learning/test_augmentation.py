import pytest
import torch

from histo_mlflow.errors import OptionError
from histo_mlflow.learning.augmentation import apply_changes, draw_changes, schedule
from histo_mlflow.learning.options import AugmentationOptions
from histo_mlflow.learning.transforms import Flip, Rotate, StainJitter


def _windows(options: AugmentationOptions) -> dict[str, tuple[int, int]]:
    return {type(each.transform).__name__: (each.first_epoch, each.last_epoch) for each in schedule(options)}


def _is_on(window: tuple[int, int], epoch: int) -> bool:
    return window[0] <= epoch <= window[1]


def test_the_seed_recipe_is_that_of_the_original_work() -> None:
    windows = _windows(AugmentationOptions(augment="seed", aug_cutoff=12))
    assert (windows["Flip"], windows["Rotate"]) == ((1, 12), (7, 12))
    assert not any(_is_on(windows["StainJitter"], epoch) for epoch in range(1, 30))


def test_each_transform_has_a_window_of_its_own() -> None:
    options = AugmentationOptions(augment="symmetries", aug_cutoff=9, flips="all", stain="3-5")
    windows = _windows(options)
    assert _is_on(windows["Flip"], 1000)
    assert (windows["Rotate"], windows["StainJitter"]) == ((1, 9), (3, 5))
    assert _windows(AugmentationOptions(aug_cutoff=9, stain="auto"))["StainJitter"] == (1, 9)
    nothing = _windows(AugmentationOptions(augment="none"))
    assert not any(_is_on(window, epoch) for window in nothing.values() for epoch in range(1, 30))


@pytest.mark.parametrize(
    ("options", "last"),
    [
        (AugmentationOptions(aug_cutoff=12), 12),
        (AugmentationOptions(aug_cutoff=99), 20),
        (AugmentationOptions(aug_cutoff=0), 0),
        (AugmentationOptions(aug_cutoff=3, stain="2-7"), 7),
        (AugmentationOptions(aug_cutoff=3, stain="30-70"), 3),
        (AugmentationOptions(augment="none", flips="all"), 20),
    ],
)
def test_last_augmented_epoch(options: AugmentationOptions, last: int) -> None:
    assert options.last_epoch(epochs=20) == last


@pytest.mark.parametrize(("epoch", "is_changed"), [(1, True), (12, True), (13, False), (20, False)])
def test_nothing_is_changed_outside_its_window(epoch: int, is_changed: bool) -> None:
    tiles = torch.randint(0, 256, (64, 8, 8, 3), dtype=torch.uint8)
    transforms = schedule(AugmentationOptions(aug_cutoff=12))
    changes = draw_changes(64, epoch=epoch, transforms=transforms, generator=torch.Generator().manual_seed(0))
    assert torch.equal(apply_changes(tiles, changes), tiles) is not is_changed


def test_a_batch_that_is_shared_changes_as_a_whole_one_does() -> None:
    tiles = torch.randint(0, 256, (9, 16, 16, 3), dtype=torch.uint8)
    transforms = schedule(AugmentationOptions(augment="symmetries", stain="all"))
    changes = draw_changes(9, epoch=1, transforms=transforms, generator=torch.Generator().manual_seed(4))
    assert [type(transform) for transform, _ in changes] == [Flip, Rotate, StainJitter]
    shares = [apply_changes(tiles[part], changes, share=part) for part in (slice(0, 5), slice(5, 9))]
    torch.testing.assert_close(torch.cat(shares).int(), apply_changes(tiles, changes).int(), atol=1, rtol=0)


@pytest.mark.parametrize(
    ("values", "named"),
    [
        ({"aug_cutoff": -1}, "aug_cutoff=-1"),
        ({"augment": "more"}, "augment=more"),
        ({"stain": "often"}, "stain=often: must be auto, none, all, or"),
        ({"rotations": "5-3"}, "rotations=5-3"),
        ({"flips": "0-3"}, "flips=0-3"),
        ({"stain_sigma": 1.5}, "stain_sigma=1.5"),
    ],
)
def test_options_without_sense_are_refused(values: dict[str, object], named: str) -> None:
    with pytest.raises(OptionError, match=named):
        AugmentationOptions(**values)  # type: ignore[arg-type]
