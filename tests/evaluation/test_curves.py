"""Curves of heads stand over C, those of epochs over epochs."""

import numpy as np
import pytest

from histo_mlflow.evaluation.curves import draw_curves, draw_fold_curves

COSTS = [1e-3, 1e-2, 1e-1]


def _history(n: int, **more: list[float]) -> dict[str, list[float]]:
    values = np.linspace(0.9, 0.3, n).tolist()
    return {f"{split}/{figure}": values for split in ("train", "val") for figure in ("loss", "accuracy")} | more


@pytest.mark.parametrize(
    ("history", "places", "label", "chosen"),
    [
        (_history(3), [1, 2, 3], "epoch", "chosen epoch 2"),
        (_history(3, **{"head/C": COSTS}), COSTS, "C of the head", "chosen C 0.01"),
    ],
)
def test_a_value_stands_at_its_epoch_or_at_its_cost(
    history: dict[str, list[float]], places: list[float], label: str, chosen: str
) -> None:
    picture = draw_curves(history, aug_cutoff=2, best_epoch=2, title="here")
    for axes in picture.axes:
        assert axes.lines[0].get_xdata().tolist() == places
        assert axes.get_xlabel() == label
        words = [text.get_text() for text in axes.get_legend().get_texts()]
        assert chosen in words
        assert ("augmentation on" in words) == (label == "epoch"), "a head has no epochs with augmentation"
        assert axes.get_xscale() == ("linear" if label == "epoch" else "log")


def test_folds_that_tried_fewer_costs_have_no_values_later_on() -> None:
    histories = [_history(2, **{"head/C": COSTS[:2]}), _history(3, **{"head/C": COSTS})]
    axes = draw_fold_curves(histories, aug_cutoff=0, title="here").axes[0]
    first, _, mean = (line.get_ydata() for line in axes.lines)
    assert np.isnan(first[2])
    assert np.isnan(mean[2]), "a mean of the others would be a leap that nothing has made"
    assert axes.lines[0].get_xdata().tolist() == COSTS
