"""What is learnt from trained weights has rates that suit them, unless others are given."""

from pathlib import Path

import pytest

from histo_mlflow.jobs.train import Train, train
from histo_mlflow.learning.options import Recipe, suit_to_trained_weights
from histo_mlflow.models.weights import InitialWeights
from histo_mlflow.options import build, flatten, option_fields
from histo_mlflow.pipeline.inputs import hint_of_size
from histo_mlflow.tracking.store import Store

_DECLARED = {name: part.default for name, part in option_fields(Recipe).items()}


def _suited(given: dict[str, object], **values: object) -> dict[str, object]:
    """Return what is changed of a recipe with these values, of which some are given."""
    recipe = build(Recipe, {**values, **given})
    before, after = flatten(recipe), flatten(suit_to_trained_weights(recipe, frozenset(given)))
    return {name: value for name, value in after.items() if value != before[name]}


def test_a_way_to_train_may_have_rates_of_its_own_and_given_values_win() -> None:
    suited = _suited({"trainable": "gradual"})
    assert suited.keys() == {"learning_rate", "layer_decay"}
    for name in suited:
        others = {key: other for key, other in suited.items() if key != name}
        assert _suited({"trainable": "gradual", name: _DECLARED[name]}) == others, (
            "also the declared default, where it is given"
        )
        assert _suited({"trainable": "gradual"}, **{name: 0.123}) == others


@pytest.mark.parametrize("trainable", ["all", "head"])
def test_the_declared_defaults_are_for_the_other_ways(trainable: str) -> None:
    assert not _suited({"trainable": trainable})


@pytest.mark.usefixtures("small_network")
def test_only_trained_weights_change_the_rates(
    work: Path, tiny_npz: Path, store: Store, capsys: pytest.CaptureFixture[str]
) -> None:
    usual = {"data": str(tiny_npz), "epochs": 2, "trainable": "gradual", "register": False}
    suited = _suited({"trainable": "gradual"})

    def learn(**values: object) -> tuple[dict[str, str], str, str]:
        """Return the parameters of the run, what was said, and the run."""
        given = {**usual, **values}
        run_id = train(build(Train, given, given=frozenset(given))).run_id
        return store.client.get_run(run_id).data.params, capsys.readouterr().out, run_id

    params, said, random = learn(weights="none")
    assert {name: params[name] for name in suited} == {name: str(_DECLARED[name]) for name in suited}
    assert "for trained weights" not in said
    params, said, _ = learn(weights=random)
    assert {name: params[name] for name in suited} == {name: str(value) for name, value in suited.items()}
    assert "for trained weights: " + ", ".join(f"{name}={value:g}" for name, value in suited.items()) in said
    assert "were made for" not in said, "they were made for tiles of this size"
    params, said, _ = learn(weights=random, **{name: _DECLARED[name] for name in suited})
    assert {name: params[name] for name in suited} == {name: str(_DECLARED[name]) for name in suited}
    assert "for trained weights" not in said


@pytest.mark.parametrize(("size_px", "is_hinted"), [(28, True), (74, True), (75, False), (224, False)])
def test_small_tiles_are_told_of_the_size_that_trained_weights_were_made_for(size_px: int, *, is_hinted: bool) -> None:
    trained = InitialWeights("lite0", None, "published", size_px=224, sha256="0a")
    assert ("image_size=112" in hint_of_size(trained, size_px)) is is_hinted
    assert not hint_of_size(InitialWeights("lite0", None, "random", size_px=224), size_px)
