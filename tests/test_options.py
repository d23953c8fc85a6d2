import math
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import yaml

from histo_mlflow.cli import JobCommand, main
from histo_mlflow.errors import OptionError, SourceNotFoundError
from histo_mlflow.jobs import find_jobs
from histo_mlflow.jobs.cv import Cv
from histo_mlflow.jobs.train import Train
from histo_mlflow.options import as_type, build, flatten, option_fields, read_yaml
from tests.conftest import PROJECT

_ALIASES = "a0: &a0 [x, x]\n" + "".join(f"a{k}: &a{k} [*a{k - 1}, *a{k - 1}]\n" for k in range(1, 30)) + "data: *a29\n"


def test_given_values_reach_their_option() -> None:
    config = build(Train, {"epochs": 3, "aug_cutoff": 2, "seed": 5, "register": False})
    assert (config.recipe.fit.epochs, config.recipe.augmentation.aug_cutoff) == (3, 2)
    assert (config.recipe.seed.seed, config.registry.register) == (5, False)


def test_a_value_with_line_breaks_is_refused_in_one_line() -> None:
    with pytest.raises(OptionError, match=r"^augment= a b : must be one of seed") as raised:
        build(Train, {"augment": "\na\nb\n"})
    assert "\n" not in str(raised.value)


def test_yaml_with_an_exponent_without_point(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("learning_rate: 1e-4\nepochs: 3\n")
    assert read_yaml(tmp_path / "a.yaml", Train) == {"learning_rate": 1e-4, "epochs": 3}


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        ("epochz: 3", "unknown option epochz"),
        ("epochs: three", "epochs='three' must be int"),
        ("epochs: true", "epochs=True must be int"),
        ("- 1", "not a mapping"),
        ("a: [", "is not yaml"),
        ("epochs: " + "[" * 5000 + "]" * 5000, "nested too deeply"),
        (_ALIASES, "holds an alias"),
        ("#" * 100_000, "larger than 65536 bytes"),
        ("epochs: " + "x" * 50_000, r"epochs='x{1,20}\.\.\.x+' must be int"),
        ("!!python/object/apply:os.system ['false']", "is not yaml"),
        ('epochs: !!int ""', "holds a tag"),
        ("epochs: !!timestamp x", "holds a tag"),
        ("epochs: 2001-99-99", "is not yaml"),
        ("epochs: " + "9" * 5000, "is not yaml"),
        ("epochs: 0x" + "f" * 5000, "epochs is out of range"),
        ("learning_rate: 0x" + "f" * 5000, "learning_rate is out of range"),
        ("epochs: 1\nepochs: 2", "epochs stands there twice"),
    ],
)
def test_bad_yaml(tmp_path: Path, text: str, reason: str) -> None:
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(OptionError, match=reason):
        read_yaml(tmp_path / "a.yaml", Train)


def test_a_word_may_stand_in_the_place_of_a_number(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for folds in ("site", 3):
        (tmp_path / "a.yaml").write_text(f"folds: {folds}\n")
        assert build(Cv, read_yaml(tmp_path / "a.yaml", Cv)).split.folds == folds
        assert as_type(option_fields(Cv)["folds"], folds) == folds
    (tmp_path / "a.yaml").write_text("folds: ward\n")
    with pytest.raises(OptionError, match="folds='ward' must be int or site or patient"):
        read_yaml(tmp_path / "a.yaml", Cv)
    with pytest.raises(OptionError, match="folds=1: must be at least 2"):
        build(Cv, {"folds": 1})
    with pytest.raises(OptionError, match="folds=ward: must be a number or one of site, patient"):
        build(Cv, {"folds": "ward"})
    with pytest.raises(SystemExit) as stopped:
        main(["cv", "--folds", "ward"])
    assert stopped.value.code == 2
    assert "'ward' is neither a whole number nor site nor patient" in capsys.readouterr().err


def test_missing_yaml(tmp_path: Path) -> None:
    with pytest.raises(SourceNotFoundError):
        read_yaml(tmp_path / "none.yaml", Train)


@pytest.mark.parametrize("name", ["epochs", "learning_rate", "register", "weights", "seed"])
def test_what_is_typed_goes_before_the_yaml_and_the_yaml_before_the_default(tmp_path: Path, name: str) -> None:
    """Of each kind of option, with the default typed against another value in the yaml."""
    default = option_fields(Train)[name].default
    other = {"epochs": 5, "learning_rate": 0.5, "register": False, "weights": "none", "seed": 7}[name]
    (tmp_path / "a.yaml").write_text(yaml.safe_dump({name: other}))
    seen: list[object] = []
    command = _watched("train", lambda options: seen.append(flatten(options)[name]))
    for given in ([], ["--config", str(tmp_path / "a.yaml")]):
        command.main(given, standalone_mode=False)
        for spelled in (name, name.replace("_", "-")):
            command.main([*given, f"--{spelled}", str(default).lower()], standalone_mode=False)
    assert seen == [default] * 3 + [other, default, default]


def _watched(name: str, run: Callable[[Any], object]) -> JobCommand:
    """Return the command of a job that does `run` instead."""
    return JobCommand(replace(find_jobs()[name], run=run))


def test_options_by_place_may_be_named_and_a_boolean_alone_is_true() -> None:
    seen: list[dict[str, object]] = []
    compare, promote = (_watched(name, lambda options: seen.append(flatten(options))) for name in ("compare", "promote"))
    compare.main(["--model_a", "models:/x/1", "--data", "a.npz"], standalone_mode=False)
    compare.main(["models:/x/1", "models:/x/2", "--data", "a.npz"], standalone_mode=False)
    promote.main(["--force", "--reason", "why"], standalone_mode=False)
    assert [(each["model_a"], each["model_b"]) for each in seen[:2]] == [
        ("models:/x/1", "models:/histo-b3@candidate"), ("models:/x/1", "models:/x/2"),
    ]  # fmt: skip
    assert (seen[2]["force"], seen[2]["reason"]) == (True, "why")


@pytest.mark.parametrize(
    ("name", "value", "reason"),
    [
        ("epochs", 0, "at least 1, for instance 20"),
        ("learning_rate", 0.0, "above 0, for instance 0.001"),
        ("learning_rate", math.nan, "above 0"),
        ("label_smoothing", 0.6, "at least 0 and at most 0.5"),
        ("val_fraction", 1.0, "above 0 and below 1"),
        ("precision", "fp16", "one of auto, fp32, bf16"),
    ],
)
def test_limits_are_kept_and_said(name: str, value: object, reason: str) -> None:
    with pytest.raises(OptionError, match=f"{name}={value}: must be {reason}"):
        build(Train, {name: value})


@pytest.mark.parametrize("arguments", [["--help"], ["train", "--help"], ["train", "--epochs", "0"], ["evaluate"]])
def test_help_and_wrong_options_need_neither_torch_nor_mlflow(arguments: list[str]) -> None:
    code = (
        "import sys\n"
        "for name in ('torch', 'mlflow', 'numpy', 'pandas'): sys.modules[name] = None\n"
        "from histo_mlflow.cli import main\n"
        f"main({arguments})\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=PROJECT, capture_output=True, text=True, check=False)
    assert "ImportError" not in done.stderr
    assert done.returncode == (0 if "--help" in arguments else 2), done.stderr


def test_help_fits_eighty_columns_and_breaks_no_words() -> None:
    for job in find_jobs().values():
        command = JobCommand(job)
        page = command.get_help(command.make_context(job.name, [], resilient_parsing=True))
        assert max(map(len, page.splitlines())) <= 80, page
        words = {word for part in option_fields(job.options).values() for word in part.metadata["option"].help.split()}
        assert words <= set(page.split()), job.name
        assert job.example in page
