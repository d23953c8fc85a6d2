import pytest
import torch

from histo_mlflow.errors import OptionError
from histo_mlflow.learning.augmentation import Flip, Rotate, StainJitter, change, transforms_in
from histo_mlflow.learning.options import AugmentationOptions


def _epochs(options: AugmentationOptions) -> dict[str, list[int]]:
    """Return in which of 30 epochs each transform acts."""
    acting = {epoch: {type(each).__name__ for each in transforms_in(epoch, options)} for epoch in range(1, 31)}
    return {name: [epoch for epoch in acting if name in acting[epoch]] for name in ("Flip", "Rotate", "StainJitter")}


def test_the_seed_recipe_is_that_of_the_original_work() -> None:
    epochs = _epochs(AugmentationOptions(augment="seed", aug_cutoff=12))
    assert epochs == {"Flip": [*range(1, 13)], "Rotate": [*range(7, 13)], "StainJitter": []}


def test_each_transform_has_a_window_of_its_own() -> None:
    options = AugmentationOptions(augment="symmetries", aug_cutoff=9, flips="all", stain="3-5")
    assert transforms_in(1000, options) == [Flip()]
    assert _epochs(options) == {"Flip": [*range(1, 31)], "Rotate": [*range(1, 10)], "StainJitter": [3, 4, 5]}
    assert _epochs(AugmentationOptions(aug_cutoff=9, stain="auto"))["StainJitter"] == [*range(1, 10)]
    assert not any(_epochs(AugmentationOptions(augment="none")).values())


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


@pytest.mark.parametrize(("epoch", "is_changed"), [(1, True), (12, True), (13, False), (20, False)])
def test_nothing_is_changed_outside_its_window(epoch: int, is_changed: bool) -> None:
    tiles = torch.randint(0, 256, (64, 8, 8, 3), dtype=torch.uint8)
    transforms = transforms_in(epoch, AugmentationOptions(aug_cutoff=12))
    changed = change(tiles, transforms, torch.Generator().manual_seed(0), n_drawn=64)
    assert torch.equal(changed, tiles) is not is_changed


def test_a_batch_that_is_shared_changes_as_a_whole_one_does() -> None:
    tiles = torch.randint(0, 256, (9, 16, 16, 3), dtype=torch.uint8)
    transforms = transforms_in(1, AugmentationOptions(augment="symmetries", stain="all"))
    assert [type(transform) for transform in transforms] == [Flip, Rotate, StainJitter]

    def changed(share: slice) -> torch.Tensor:
        generator = torch.Generator().manual_seed(4)
        return change(tiles[share], transforms, generator, n_drawn=9, share=share).int()

    shares = torch.cat([changed(slice(0, 5)), changed(slice(5, 9))])
    torch.testing.assert_close(shares, changed(slice(None)), atol=1, rtol=0)
