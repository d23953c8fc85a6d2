"""Which version of a registered model is in use: its stage and its aliases, read and moved together."""

import warnings
from collections.abc import Mapping
from dataclasses import dataclass

from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion

from histo_mlflow.errors import RequestError
from histo_mlflow.tracking.store_errors import found_or_none

PRODUCTION_STAGE = "Production"
PRODUCTION_ALIASES = ("champion", "Production")


@dataclass(frozen=True)
class Pointers:
    """What the names of a registered model's version in use point to: the stage, and each alias that is set."""

    name: str
    stage: str | None
    aliases: Mapping[str, str]

    @property
    def agree(self) -> bool:
        """Whether all names point to one version, or none does to any."""
        return {self.stage, *(self.aliases.get(alias) for alias in PRODUCTION_ALIASES)} in ({self.stage}, {None})

    @property
    def version(self) -> str | None:
        """What ``models:/NAME/Production`` resolves to: the stage goes first, as in MLflow."""
        return self.stage or next((self.aliases[alias] for alias in PRODUCTION_ALIASES if alias in self.aliases), None)

    def describe_disagreement(self) -> str:
        """Return what points where, and the two ways out."""
        named = {f"the stage {PRODUCTION_STAGE} is": self.stage}
        named |= {f"the alias {alias}": self.aliases.get(alias) for alias in PRODUCTION_ALIASES}
        said = [f"{name} {f'version {version}' if version else 'no version'}" for name, version in named.items()]
        others = sorted({version for version in (self.stage, *self.aliases.values()) if version}, key=int)
        ways = " or ".join(f"histo promote --model-name {self.name} --version {each} --force --reason TEXT" for each in others)
        return f"{self.name}: {', '.join(said)}: moved by hand? Nothing was changed; say which is meant: {ways}"


def read_pointers(client: MlflowClient, name: str) -> Pointers:
    """Return what the names of the version in use point to; nothing, if nothing is registered."""
    staged = [str(each.version) for each in versions_of(client, name) if each.current_stage == PRODUCTION_STAGE]
    model = found_or_none(client.get_registered_model, name)
    aliases = model.aliases if model else {}
    ours = {alias: str(version) for alias, version in aliases.items() if alias in PRODUCTION_ALIASES}
    return Pointers(name, max(staged, key=int, default=None), ours)


def production_version(client: MlflowClient, name: str) -> str | None:
    """Return the version in Production, or None.

    Raises:
        RequestError: Stage and aliases point to different versions.
    """
    pointers = read_pointers(client, name)
    if not pointers.agree:
        raise RequestError(pointers.describe_disagreement())
    return pointers.version


def move_pointers(client: MlflowClient, name: str, version: str) -> None:
    """Point the aliases and the stage of Production at `version`; each step leaves every name resolvable, all may be repeated.

    Other versions are archived one by one: MLflow's own way of archiving them fails on PostgreSQL with psycopg 3, where it
    compares a number with a text.
    """
    for alias in PRODUCTION_ALIASES:
        client.set_registered_model_alias(name, alias, version)
    with warnings.catch_warnings():
        # MLflow has deprecated stages, yet ``models:/<name>/Production`` is what others' code uses (docs/decisions/0002).
        warnings.simplefilter("ignore", FutureWarning)
        client.transition_model_version_stage(name, version, PRODUCTION_STAGE)
        for each in versions_of(client, name):
            if each.current_stage == PRODUCTION_STAGE and str(each.version) != version:
                client.transition_model_version_stage(name, str(each.version), "Archived")


def versions_of(client: MlflowClient, name: str) -> list[ModelVersion]:
    """Return all versions of a registered model."""
    return list(client.search_model_versions(f"name = '{name}'"))
