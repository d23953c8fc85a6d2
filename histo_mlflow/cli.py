"""The command line: one command per entry point, its options read from the dataclasses that hold them."""

from collections.abc import Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, NoReturn

import click

import histo_mlflow
from histo_mlflow.command_line import COMMAND_SETTINGS, make_options, run_command, typed_values
from histo_mlflow.options import (
    GIVEN,
    CompareConfig,
    CvConfig,
    DeliverConfig,
    EvaluateConfig,
    ExportConfig,
    HistoryConfig,
    MirrorConfig,
    PredictConfig,
    PromoteConfig,
    ReportConfig,
    RollbackConfig,
    TrainConfig,
    build,
    option_fields,
    read_yaml,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110, **COMMAND_SETTINGS})
@click.version_option(histo_mlflow.__version__, prog_name="histo")
def cli() -> None:
    """Train, cross-validate, evaluate and reuse classifiers of histology tiles; MLflow keeps every run.

    Each command is also an entry point: `histo cv --epochs 5` is `mlflow run . -e cv -P epochs=5`.
    """


def _add_command(name: str, config_class: type, text: str) -> None:
    def callback(**_values: Any) -> None:
        config: object = build(config_class, _resolve(config_class, typed_values(click.get_current_context())))
        # Imported now: what an entry point needs takes seconds, and an option that is wrong needs none of it.
        getattr(import_module(f"histo_mlflow.jobs.{name}"), name)(config)

    params = make_options(option_fields(config_class).values())
    params.append(click.Option(["--config"], default="none", show_default=True, help=_CONFIG_HELP))
    params.append(click.Option(["--debug"], is_flag=True, expose_value=False, help="Show a traceback on errors."))
    cli.add_command(click.Command(name, params=params, callback=callback, help=text, short_help=text.partition(".")[0]))


_CONFIG_HELP = "A yaml with option names and values, such as a run's config.yaml; what is typed goes before it."


def _resolve(config_class: type, typed: dict[str, Any]) -> dict[str, Any]:
    """Return the option values that were given: what was typed before the yaml's, whatever they are."""
    chosen = typed.pop("config", "none")
    from_yaml = {} if chosen in {"", "none"} else read_yaml(Path(chosen), config_class)
    given = from_yaml | typed
    return {**given, GIVEN: frozenset(given)}


_add_command(
    "train",
    TrainConfig,
    "Train on one part of the tiles and validate on the other. The epoch of the lowest validation loss is registered.",
)
_add_command(
    "cv",
    CvConfig,
    "Cross-validate: one run per fold under a parent run. The model of the best fold is registered.",
)
_add_command(
    "evaluate",
    EvaluateConfig,
    "Score a model on labelled tiles. Tables, figures and a report are kept in a run.",
)
_add_command(
    "compare",
    CompareConfig,
    "Score two models on the same labelled tiles. Says what B has over A, with intervals, and where they disagree. MODEL_A is "
    "models:/histo-b3/Production and MODEL_B models:/histo-b3@candidate unless given.",
)
_add_command(
    "predict",
    PredictConfig,
    "Write a label and probabilities for every image to a CSV file. The images need no labels.",
)


_add_command(
    "promote",
    PromoteConfig,
    "Put a version into Production. It is compared with the one in use on the labelled tiles of --test-data.",
)
_add_command(
    "export",
    ExportConfig,
    "Write a model for another runtime. It is compared with the model on tiles before it is kept. MODEL is "
    "models:/histo-b3/Production unless given.",
)
_add_command(
    "mirror",
    MirrorConfig,
    "Send a run that has ended to Weights & Biases. RUN is its id in MLflow; what is there already is not sent again.",
)
_add_command(
    "deliver",
    DeliverConfig,
    "Send what a tracking server could not take of a run while it was away. RUN is its id in MLflow; nothing is sent twice.",
)
_add_command(
    "report",
    ReportConfig,
    "Make the curves, figures and pages of a run again from what it keeps. RUN is its id in MLflow; no number changes.",
)
_add_command("history", HistoryConfig, "Print who put which version into Production, when and why.")
_add_command("rollback", RollbackConfig, "Put the version back into Production that the present one has replaced.")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit."""
    run_command(cli, prog_name="histo", arguments=arguments)
