"""Registered models: what is put into the registry, what is in Production, what a name stands for."""

import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import mlflow.artifacts
from mlflow import MlflowClient
from mlflow.entities.model_registry import ModelVersion
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from histo_mlflow.base.scratch import scratch_folder
from histo_mlflow.base.secrets import hide_secrets
from histo_mlflow.errors import OptionError, RequestError, SourceNotFoundError, StoreError
from histo_mlflow.tracking.kept import kept_run
from histo_mlflow.tracking.logged_models import MODEL_KIND
from histo_mlflow.tracking.production import versions_of
from histo_mlflow.tracking.store import Store
from histo_mlflow.tracking.store_errors import naming_what_is_refused

CANDIDATE_ALIAS = "candidate"
MODEL_URI_TAG, REGISTERED_TAG = "histo.model_uri", "histo.registered"
"""Of a run: its logged model, and the version that this has become."""
SOURCE_RUN_TAG, LEARNT_IN_TAG = "source_run", "learnt_in_run"
"""Of a version: the run that a user has begun, whose page shows the version, and the one whose network it is."""
_KIND_TAG = "histo.kind"
_MAX_DESCRIPTION = 5000  # a column of MLflow's database; SQLite lets more pass, PostgreSQL does not
_BEST_CHECKPOINT = "checkpoints/best.safetensors"
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_IS_WHOLE = re.compile(r"models:/(m-\w+|[^/@]+[/@].+)|runs:/[^/]+/.+")


def ask_to_register(store: Store, name: str) -> None:
    """Make sure, before anything is learnt for it, that there is a registered model `name` and that it may be changed.

    What is in Production stays as it is; only a tag is set, for which MLflow asks the same right as for versions and aliases.

    Raises:
        RequestError: The user has no right to that.
    """
    with changing_model(name):
        _ensure_registered_model(store.client, name)
        store.client.set_registered_model_tag(name, _KIND_TAG, MODEL_KIND)


def changing_model(name: str) -> AbstractContextManager[None]:
    """Name the registered model, and what may not be done with it, where the user lacks the right to change it."""
    right = "create versions and set its stage, aliases and tags"
    return naming_what_is_refused(f"registered model {name!r}", right)


@dataclass(frozen=True)
class VersionFacts:
    """What is kept with a version: the run that it comes from, its card in Markdown, tags."""

    run_id: str
    description: str = ""
    tags: Mapping[str, str] = field(default_factory=dict)


def create_version(store: Store, model_uri: str, name: str, about: VersionFacts) -> str:
    """Return the version of a logged model, a new one unless its run has one: a run that was killed and resumed has."""
    _ensure_registered_model(store.client, name)
    own = {about.run_id, about.tags.get(LEARNT_IN_TAG)}  # an earlier version of this package named the run of the fold
    if earlier := [each for each in versions_of(store.client, name) if each.run_id in own]:
        return max((str(each.version) for each in earlier), key=int)
    card, rest = about.description, "\n\n... (the whole card lies in the model as model_card.md)"
    created = store.client.create_model_version(
        name,
        source=model_uri,
        run_id=about.run_id,
        description=card if len(card) <= _MAX_DESCRIPTION else card[: _MAX_DESCRIPTION - len(rest)] + rest,
        tags=dict(about.tags),
        model_id=model_uri.removeprefix("models:/"),
    )
    return str(created.version)


def find_version(store: Store, name: str, *, version: str, run_id: str) -> str:
    """Return the version that is named by its number or by the run that has registered it; ``none`` is not given.

    Raises:
        OptionError: Neither or both are given.
        SourceNotFoundError: There is no such version.
    """
    is_given = [value not in {"", "none"} for value in (version, run_id)]
    if sum(is_given) != 1:
        raise OptionError("give either version=N or run=ID of what is to be promoted")
    found = versions_of(store.client, name)
    for each in sorted(found, key=lambda one: int(one.version), reverse=True):
        if str(each.version) == version or (is_given[1] and run_id in _runs_of(each)):
            return str(each.version)
    asked = f"version={version}" if is_given[0] else f"run={run_id}"
    raise SourceNotFoundError(f"{asked}: {name} has no such version; `mlflow ui` shows what is registered")


def _runs_of(version: ModelVersion) -> set[str | None]:
    """Return the runs that a version comes from: the one that a user has begun, and the fold that has learnt it."""
    return {version.run_id, version.tags.get(SOURCE_RUN_TAG), version.tags.get(LEARNT_IN_TAG)}


def _ensure_registered_model(client: MlflowClient, name: str) -> None:
    try:
        client.get_registered_model(name)
    except StoreError:
        try:
            client.create_registered_model(
                name,
                description="Classifier of histology tiles. `models:/"
                f"{name}/Production` and `models:/{name}@champion` are the version in use. For research, not for diagnosis.",
            )
        except StoreError:
            client.get_registered_model(name)  # created by another process meanwhile, or the true error


@dataclass(frozen=True)
class LocatedModel:
    """Where a model's files are for now: a folder with an MLmodel file, or one checkpoint file."""

    path: Path
    address: str

    @property
    def is_checkpoint(self) -> bool:
        """True for a checkpoint file, False for an MLflow model."""
        return self.path.is_file()

    @property
    def run_id(self) -> str | None:
        """Id of the run that the model comes from, or None if nothing says so."""
        if self.is_checkpoint:
            _, _, rest = self.address.partition("runs:/")
            return rest.partition("/")[0] or (self.address if _RUN_ID.fullmatch(self.address) else None)
        run_id: str | None = Model.load(str(self.path)).run_id
        return run_id


@contextmanager
def located_model(store: Store, address: str, *, option: str = "model") -> Iterator[LocatedModel]:
    """Give the local files of a model; what had to be fetched is gone afterwards.

    Args:
        store: Where runs and registered models are looked up.
        address: ``models:/...``, ``runs:/RUN_ID/...``, a run id (its model, or its best checkpoint), or a path
            to a checkpoint or a model folder.
        option: Which option has named it, for the error.

    Raises:
        SourceNotFoundError: There is no such model.
    """
    asked = f"{option}={address}"
    with scratch_folder() as draft:
        path = Path(address) if Path(address).exists() else _fetch(store, address, asked, draft)
        if not (path.is_dir() or path.is_file()):  # a pipe would be waited for for ever
            raise RequestError(f"{asked} is neither a file nor a folder; give a model or a .safetensors checkpoint")
        if path.is_dir() and not (path / "MLmodel").exists():
            raise RequestError(f"{asked} is a folder without a file MLmodel; give a model or a .safetensors checkpoint")
        yield LocatedModel(path, address)


def _fetch(store: Store, address: str, asked: str, folder: Path) -> Path:
    uri = address
    if _RUN_ID.fullmatch(address):
        tags = kept_run(store.client, address, asked=asked).data.tags
        uri = tags.get(MODEL_URI_TAG, f"runs:/{address}/{_BEST_CHECKPOINT}")
    if not _IS_WHOLE.fullmatch(uri):
        raise SourceNotFoundError(f"{asked}: {_advise(address)}")
    source = store.client.tracking_uri  # of a store that is there: `download_artifacts` would create a missing file
    try:
        return Path(mlflow.artifacts.download_artifacts(artifact_uri=uri, tracking_uri=source, dst_path=str(folder)))
    except (MlflowException, OSError) as error:
        reason = str(error).partition("\n")[0][:200]
        raise SourceNotFoundError(
            hide_secrets(f"{asked} is not in the store {store.uri} ({reason}); `mlflow ui` shows what is there")
        ) from None


def _advise(address: str) -> str:
    """Return what is wrong with an address and what would be right."""
    if match := re.fullmatch(r"models:/([^/@]+)/?", address):
        return f"the version is missing; give {match[0].rstrip('/')}/Production, a number or {match[0].rstrip('/')}@champion"
    if match := re.fullmatch(r"runs:/(\w+)/?", address):
        return f"give the run's id alone ({match[1]}) for its model, or runs:/{match[1]}/checkpoints/epoch_007.safetensors"
    if re.fullmatch(r"[0-9a-f]{6,31}", address):
        return f"a run's id has 32 characters, this has {len(address)}; `mlflow ui` shows the whole id"
    return "no such file; give models:/histo-b3/Production, a run id, runs:/RUN_ID/checkpoints/epoch_007.safetensors or a path"


def names_a_model(address: str) -> bool:
    """Return whether `address` is of the store: ``models:/...``, ``runs:/...`` or a run id."""
    return address.startswith(("models:/", "runs:/")) or _RUN_ID.fullmatch(address) is not None


def version_of(store: Store, address: str) -> str | None:
    """Return the version that ``models:/NAME/STAGE`` or ``models:/NAME@ALIAS`` stands for now, or None for other addresses."""
    staged, aliased = (re.fullmatch(pattern, address) for pattern in (r"models:/([^/@]+)/(\D.*)", r"models:/([^/@]+)@(.+)"))
    try:
        if aliased:
            return str(store.client.get_model_version_by_alias(aliased[1], aliased[2]).version)
        if staged:
            named = [v for v in versions_of(store.client, staged[1]) if str(v.current_stage).lower() == staged[2].lower()]
            return max((str(v.version) for v in named), key=int, default=None)
    except StoreError:  # loading says what is missing
        pass
    return None


def pinned(store: Store, address: str) -> str:
    """Return the address of the version that a stage or an alias stands for now, which stays the same; others as they are."""
    version = version_of(store, address)
    return address if version is None else f"models:/{re.split('[/@]', address.removeprefix('models:/'))[0]}/{version}"
