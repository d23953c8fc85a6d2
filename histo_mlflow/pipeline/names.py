"""What a run is called: data, what learns from them, what differs from the defaults, and at the end the figure."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from histo_mlflow.base.secrets import hide_secrets
from histo_mlflow.evaluation.findings import Findings
from histo_mlflow.evaluation.verdict import SPLITS
from histo_mlflow.learning.options import ComputeOptions, EngineOptions, Recipe
from histo_mlflow.options import flatten, option_fields, stated
from histo_mlflow.pipeline.options import LearningOptions
from histo_mlflow.tracking.options import RunOptions
from histo_mlflow.tracking.runs import Run

_MOST_CHARACTERS, _MOST_OF_A_PART, _MOST_DIFFERENCES = 200, 40, 4
_SAID_OTHERWISE = {"backbone", "folds"} | {
    name for options in (ComputeOptions, EngineOptions) for name in option_fields(options)
}  # the latter change no more than the last digits
_DATA_SUFFIXES = {".npz", ".h5", ".hdf5", ".zip", ".tar", ".gz", ".csv", ".parquet"}
_PARTS_OF_A_SET = {"train", "training", "val", "valid", "validation", "test"}
_OTHERS = re.compile(r"^(?P<kind>models|runs):/(?P<name>[^/@]+)[/@]?(?P<rest>.*)$")
_FIGURE = re.compile(rf" ({'|'.join(SPLITS)}) \d\.\d+$")
_ID = re.compile(r"[0-9a-f]{32}")


@dataclass(frozen=True)
class RunName:
    """What a run is called.

    Attributes:
        made: By us, of what is known when it begins.
        chosen: By the user instead, or None.
    """

    made: str
    chosen: str | None = None

    @classmethod
    def of(cls, made: str, asked: RunOptions) -> "RunName":
        """Return the name that the user has chosen, else the one that was made."""
        return cls(visible_name(made), stated(asked.run_name))

    @property
    def at_first(self) -> str:
        """As long as no figure is known."""
        return self.chosen or self.made

    def end(self, run: Run, figure: str) -> None:
        """Call `run` by its figure too, unless its name is the user's own."""
        if self.chosen is None:
            run.rename(f"{self.made} {figure}", made=self.made)


def visible_name(text: str) -> str:
    """Return a text as a name can be: without secrets, on one line, not too long."""
    return "".join(letter if letter.isprintable() else "?" for letter in hide_secrets(text))[:_MOST_CHARACTERS]


def figure_of(findings: Findings) -> str:
    """Return the figure by which runs are told apart, and of which tiles it is: ``val 0.810``."""
    return f"{findings.about.split} {findings.evaluation.overall['balanced_accuracy'].value:.3f}"


def name_of(run: Run) -> str:
    """Return what a run is called, with the first characters of its id, which no other has.

    The figure at its end is left out: beside others a run may be shown on other tiles.
    """
    return f"{_FIGURE.sub('', run.store.client.get_run(run.id).info.run_name)} ({run.id[:8]})"


def name_learning(options: LearningOptions, *, encoder: str = "") -> str:
    """Return what a training is called: ``crc5 lite0 head epochs=5``.

    Args:
        options: As they suit the tiles.
        encoder: What has made the features, if the tiles are such.
    """
    folds = flatten(options.split).get("folds")
    parts = [short_data(options.data.data), short_backbone(encoder or options.recipe.network.backbone)]
    parts += [f"{folds}-fold"] if folds else []
    differences = list(_differences(options))
    more = len(differences) - _MOST_DIFFERENCES
    return " ".join([*parts, *differences[:_MOST_DIFFERENCES], *([f"+{more}"] if more > 0 else [])])


def short_data(source: str) -> str:
    """Return what tiles are called in short: the name of their file or folder, of several the first and how many more.

    A folder ``train`` or ``test`` does not say of what: it is called with the one above.
    """
    first, *others = [part for part in source.split(",") if part.strip()] or [source]
    address, _, part = first.strip().partition("#")
    path = PurePosixPath(address.partition("?")[0].rstrip("/"))
    name = path.stem if path.suffix.lower() in _DATA_SUFFIXES else path.name
    if name.lower() in _PARTS_OF_A_SET:
        name = "/".join([*path.parts[-2:-1], name]).lstrip("/")
    name = (name or address)[:_MOST_OF_A_PART] + (f"#{part}" if part else "")
    return f"{name}+{len(others)}" if others else name


def short_backbone(backbone: str) -> str:
    """Return what a network is called in short: without where it is from."""
    name = backbone.partition("@")[0].rstrip("/").rpartition("/")[2].rpartition(":")[2]
    return (Path(name).stem if name.endswith((".pt", ".pt2")) else name)[:_MOST_OF_A_PART]


def short_model(address: str) -> str:
    """Return what a model is called in short: ``histo-b3/3``, the first characters of a run's id, the name of a file."""
    if found := _OTHERS.fullmatch(address):
        whose = found["name"][:8] if _ID.fullmatch(found["name"]) else found["name"]
        return f"{whose}/{PurePosixPath(found['rest']).name}" if found["rest"] else whose
    return address[:8] if _ID.fullmatch(address) else Path(address).name[:_MOST_OF_A_PART]


def _differences(options: LearningOptions) -> Iterator[str]:
    """Give what was asked otherwise than the defaults have it, of how tiles are divided and how is learnt from them."""
    known, values = option_fields(type(options)), flatten(options)
    wanted = [*option_fields(Recipe), *option_fields(type(options.split))]
    # Words first, for they say most in least room.
    for name in sorted(wanted, key=lambda name: not known[name].metadata["option"].choices):
        if name in options.given and name not in _SAID_OTHERWISE and values[name] != known[name].default:
            yield _spell(name, values[name], is_choice=bool(known[name].metadata["option"].choices))


def _spell(name: str, value: Any, *, is_choice: bool) -> str:
    words = name.replace("_", " ")
    if isinstance(value, bool):
        return words if value else f"no {words}"
    if is_choice and value not in {"none", "auto"}:
        return str(value)
    return f"{name}={value:g}" if isinstance(value, (int, float)) else f"{name}={short_model(value)}"
