from pathlib import Path

import pytest

from histo_mlflow.config import CvConfig, EvaluateConfig, PredictConfig, TrainConfig, build, flatten, option_fields, read_yaml
from histo_mlflow.errors import OptionError, SourceNotFoundError

CONFIGS = [TrainConfig, CvConfig, EvaluateConfig, PredictConfig]


@pytest.mark.parametrize("config_class", CONFIGS)
def test_options_survive_the_way_to_values_and_back(config_class: type) -> None:
    config = build(config_class, {})
    assert build(config_class, flatten(config)) == config
    assert list(flatten(config)) == list(option_fields(config_class))


@pytest.mark.parametrize("config_class", CONFIGS)
def test_every_option_has_a_default_and_a_sentence_of_help(config_class: type) -> None:
    for name, option in option_fields(config_class).items():
        assert isinstance(option.default, (str, int, float, bool)), name
        assert len(option.metadata["help"]) > 10, name


def test_given_values_reach_their_option() -> None:
    config = build(TrainConfig, {"epochs": 3, "aug_cutoff": 2, "seed": 5, "register": False})
    assert (config.learning.fit.epochs, config.learning.augmentation.aug_cutoff) == (3, 2)
    assert (config.learning.seed.seed, config.registry.register) == (5, False)


def test_yaml_with_an_exponent_without_point(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("learning_rate: 1e-4\nepochs: 3\n")
    assert read_yaml(tmp_path / "a.yaml", TrainConfig) == {"learning_rate": 1e-4, "epochs": 3}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("epochz: 3", "unknown option epochz"),
        ("epochs: three", "epochs='three' must be int"),
        ("epochs: true", "epochs=True must be int"),
        ("- 1", "not a mapping"),
        ("a: [", "is not yaml"),
    ],
)
def test_bad_yaml(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(OptionError, match=reason):
        read_yaml(tmp_path / "a.yaml", TrainConfig)


def test_missing_yaml(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError):
        read_yaml(tmp_path / "none.yaml", TrainConfig)
