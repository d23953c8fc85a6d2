"""Who decided when that which version is in Production, and why: kept as tags on the versions, read back as one history."""

import json
from dataclasses import asdict, dataclass, field
from datetime import UTC, datetime
from typing import Any

from mlflow import MlflowClient

from histo_mlflow.errors import RequestError, SourceNotFoundError
from histo_mlflow.interruption import shielded
from histo_mlflow.tracking.provenance import user_name
from histo_mlflow.tracking.registry import CANDIDATE_ALIAS, production_version, promote
from histo_mlflow.tracking.store import Store, alone_in, reporting_store_errors

FIRST, PROMOTED, REFUSED, FORCED, ROLLED_BACK = "first", "promoted", "refused", "forced", "rolled back"
_TAG = "histo.decision."


@dataclass(frozen=True)
class Decision:
    """One decision on a version.

    Attributes:
        what: ``first``, ``promoted``, ``refused``, ``forced`` or ``rolled back``.
        version: On which; the one that is then in Production, unless it was refused.
        incumbent: Version that was in Production before, or None.
        reason: Figures or the words of who decided.
        run: That the figures are kept in, or None.
        evidence: Figures, as JSON can hold them.
        user: Who.
        time: When, ISO 8601 in UTC.
    """

    what: str
    version: str
    incumbent: str | None
    reason: str
    run: str | None = None
    evidence: dict[str, Any] = field(default_factory=dict)
    user: str = field(default_factory=user_name)
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="microseconds"))

    @property
    def moves_production(self) -> bool:
        """Whether its version is in Production from then on."""
        return self.what != REFUSED


def carry_out(store: Store, name: str, decision: Decision) -> None:
    """Write the decision to its version and, unless it refuses, move stage and aliases; one process at a time.

    The tag comes first: a crash between the two leaves a reason without a move, which the next decision completes, and never a
    move without a reason.

    Raises:
        RequestError: Another version has come to Production since the decision was made.
    """
    with shielded(), reporting_store_errors(store.uri), alone_in(store.uri):
        client = store.client
        present = production_version(client, name)
        if present != decision.incumbent:
            raise RequestError(
                f"{name}: version {present} has come to Production meanwhile (version {decision.incumbent or 'none'} was "
                "compared with); nothing was changed: run it again"
            )
        note_decision(store, name, decision)
        if decision.moves_production:
            promote(client, name, decision.version)
            aliases = client.get_registered_model(name).aliases
            if str(aliases.get(CANDIDATE_ALIAS)) == decision.version:
                client.delete_registered_model_alias(name, CANDIDATE_ALIAS)


def note_decision(store: Store, name: str, decision: Decision) -> None:
    """Write a decision to its version, behind those that it has already, and move nothing."""
    with reporting_store_errors(store.uri):
        number = len(_decisions_on(store.client, name, decision.version))
        store.client.set_model_version_tag(name, decision.version, f"{_TAG}{number:03d}", json.dumps(asdict(decision)))


def read_history(store: Store, name: str) -> list[Decision]:
    """Return all decisions on a registered model, the oldest first.

    Raises:
        SourceNotFoundError: There is no such model.
    """
    with reporting_store_errors(store.uri):
        versions = store.client.search_model_versions(f"name = '{name}'")
        found = [decision for version in versions for decision in _decisions_on(store.client, name, str(version.version))]
    if not versions:
        raise SourceNotFoundError(f"model_name={name}: nothing is registered under it; `mlflow ui` shows what is there")
    return sorted(found, key=lambda decision: decision.time)


def version_before(store: Store, name: str) -> tuple[str, str]:
    """Return the version in Production and the one that it has replaced.

    Raises:
        RequestError: None is in Production, or nothing says what was there before.
    """
    history = read_history(store, name)
    with reporting_store_errors(store.uri):
        present = production_version(store.client, name)
    if present is None:
        raise RequestError(f"{name}: no version is in Production; histo promote --version N puts one there")
    moves = [decision for decision in history if decision.moves_production and decision.version == present]
    before = moves[-1].incumbent if moves else None
    if before is None:
        raise RequestError(f"{name}: nothing was in Production before version {present}; there is nothing to go back to")
    return present, before


def _decisions_on(client: MlflowClient, name: str, version: str) -> list[Decision]:
    tags = client.get_model_version(name, version).tags
    return [Decision(**json.loads(value)) for tag, value in sorted(tags.items()) if tag.startswith(_TAG)]
