"""The summary of a training: its scores, its file, and what pretends to be one."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from histo_mlflow.learning.compute import Compute
from histo_mlflow.learning.infer import infer
from histo_mlflow.models.classifier import TileClassifier, fold_batch_norms, with_temperature
from histo_mlflow.models.features import FeatureNetwork
from histo_mlflow.models.parts import Joined, split_at_head
from histo_mlflow.models.revealed import reveal
from histo_mlflow.models.training_summary import HeldOut, Seen, TrainingSummary, find_space, summarise, summary_from
from histo_mlflow.tiles.demo import draw_demo
from tests.small_network import network_with_opinions

COMPUTE = Compute(torch.device("cpu"), is_bf16=False)


def _summary(n_features: int = 1536, n_groups: int = 200) -> TrainingSummary:
    rng = np.random.default_rng(0)
    space = find_space(rng.normal(size=(500, n_features)).astype(np.float32))
    seen = Seen(rng.normal(size=(600, 9)).astype(np.float32), rng.normal(size=(600, n_features)).astype(np.float32))
    groups = rng.integers(0, n_groups, 600).astype(str)
    return summarise(space, [HeldOut(space.scores_of(seen), seen.called, groups)], 9)


def test_scores_are_what_their_definitions_say() -> None:
    rng = np.random.default_rng(0)
    features = (rng.normal(size=(400, 20)) * np.linspace(3, 0.1, 20)).astype(np.float32)
    space = find_space(features)
    assert space.directions.shape == (20, 10)
    logits = rng.normal(size=(5, 4)).astype(np.float32)
    strange, sure = space.scores_of(Seen(logits, features[:5]))
    away = features[:5] - features.mean(axis=0)
    # By least squares: what the ten directions of an eigendecomposition leave over.
    directions = np.linalg.eigh(np.cov(features.T))[1][:, -10:]
    left = away - away @ directions @ directions.T
    expected = np.log((left**2).sum(axis=1) / ((features - features.mean(axis=0)) ** 2).sum(axis=1).mean())
    np.testing.assert_allclose(strange, expected, atol=0.02)
    highest = torch.softmax(torch.from_numpy(logits).double(), dim=1).max(dim=1).values.numpy()
    np.testing.assert_allclose(sure, np.log(highest / (1 - highest)), rtol=1e-6)
    sure_of_all = space.scores_of(Seen(np.array([[900.0, -900.0]], np.float32), features[:1]))[1]
    assert sure_of_all == 1800, "no probability of 1 loses what is behind it"


def test_the_file_holds_it_whole_and_is_small() -> None:
    summary = _summary()
    content = summary.to_bytes()
    assert len(content) < 200_000
    again = summary_from(content)
    assert again.is_grouped
    for name in ("counts", "sums", "variances"):
        np.testing.assert_array_equal(getattr(again, name), getattr(summary, name))
    np.testing.assert_array_equal(again.space.directions, summary.space.directions)
    assert again.space.spread == summary.space.spread


def test_many_groups_are_kept_small_too() -> None:
    rng = np.random.default_rng(0)
    space = find_space(rng.normal(size=(50, 8)).astype(np.float32))
    scores, called = rng.normal(size=(2, 5000)), rng.integers(0, 9, 5000)
    kept = summarise(space, [HeldOut(scores, called, np.arange(5000).astype(str))], 9)
    assert len(kept.counts) == 1000
    assert len(kept.to_bytes()) < 150_000


def _cut(content: bytes) -> bytes:
    return content[:-40]


def _other_scores(content: bytes) -> bytes:
    return content.replace(b"strangeness", b"strangenass")


def _not_finite(content: bytes) -> bytes:
    summary = summary_from(content)
    return replace(summary, sums=np.full_like(summary.sums, np.inf)).to_bytes()


def _other_width(content: bytes) -> bytes:
    summary = summary_from(content)
    return replace(summary, space=replace(summary.space, centre=summary.space.centre[:-1])).to_bytes()


@pytest.mark.parametrize(
    "spoil", [_cut, _other_scores, _not_finite, _other_width, lambda _: b"", lambda _: json.dumps({"a": 1}).encode() * 9]
)
def test_what_pretends_to_be_one_is_refused(spoil) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r"not a summary of a training|do not fit together"):
        summary_from(spoil(_summary(64, 5).to_bytes()))


@pytest.mark.usefixtures("small_network")
def test_features_come_beside_the_same_logits() -> None:
    tiles = draw_demo(n_tiles=9, tile_size_px=32, seed=3)
    torch.manual_seed(0)
    network = with_temperature(network_with_opinions(tiles), 1.7).eval()
    example = torch.zeros((2, 34, 37, 3), dtype=torch.uint8)
    sizes = {0: torch.export.Dim.AUTO, 1: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO}
    exported = torch.export.export(network, (example,), dynamic_shapes={"tiles": sizes}).module()
    images = np.array(tiles.images)
    expected = infer(FeatureNetwork(network), images, compute=COMPUTE, description=None)
    for name, each in {
        "checkpoint": network,
        "folded": fold_batch_norms(network),
        "graph": exported,
        "folded graph": fold_batch_norms(exported),
        "two parts": Joined(*split_at_head(network)),
    }.items():
        revealed = reveal(each)
        assert revealed is not None, name
        both = infer(revealed, images, compute=COMPUTE, description=None)
        np.testing.assert_array_equal(both[:, :9], infer(each, images, compute=COMPUTE, description=None), err_msg=name)
        np.testing.assert_allclose(both[:, 9:], expected, atol=1e-4, err_msg=name)


def test_a_network_that_takes_features_shows_them() -> None:
    network = TileClassifier(n_classes=3, tile_size_px=0, backbone="features:12").eval()
    given = np.random.default_rng(0).normal(size=(20, 12)).astype(np.float32)
    revealed = reveal(network)
    assert revealed is not None
    np.testing.assert_allclose(infer(revealed, given, compute=COMPUTE, description=None)[:, 3:], given, atol=1e-6)


def test_a_graph_without_a_linear_head_has_nothing_to_show() -> None:
    class Mean(torch.nn.Module):
        def forward(self, tiles: torch.Tensor) -> torch.Tensor:
            return tiles.float().mean(dim=(1, 2))

    assert reveal(Mean()) is None
    assert reveal(torch.export.export(Mean(), (torch.zeros((2, 4, 4, 3), dtype=torch.uint8),)).module()) is None
