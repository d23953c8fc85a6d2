"""Who decided when that which version is in Production, and why: written down first, then carried out, as one step.

Decisions are tags on the registered model, numbered in order; they outlive versions that are deleted, and clocks that differ.
"""

import json
import logging
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from mlflow import MlflowClient

from histo_mlflow.base.interruption import shielded
from histo_mlflow.base.plain_values import build_plain, parse_json
from histo_mlflow.errors import RequestError, SourceNotFoundError
from histo_mlflow.tracking.origin import user_name
from histo_mlflow.tracking.production import move_pointers, production_version, read_pointers, versions_of
from histo_mlflow.tracking.registry import CANDIDATE_ALIAS, VersionFacts, changing_model, create_version
from histo_mlflow.tracking.store import Store, alone_in
from histo_mlflow.tracking.store_errors import found_or_none, suppressing_refusals

FIRST, PROMOTED, REFUSED, FORCED, ROLLED_BACK = "first", "promoted", "refused", "forced", "rolled back"
_TAG = "histo.decision."
_NUMBERED = re.compile(r"histo\.decision\.[0-9]{1,9}")
_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Registration:
    """A new version and what it became.

    Attributes:
        name, version: Of the registered model.
        incumbent: The version that is in Production instead, or None.
        decision: What was decided on it, or None where a comparison is needed.
        trouble: Why nothing can be decided now, in words, or empty.
    """

    name: str
    version: str
    incumbent: str | None
    decision: "Decision | None" = None
    trouble: str = ""

    @property
    def uri(self) -> str:
        """The URI of exactly this version."""
        return f"models:/{self.name}/{self.version}"


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
        time: When, ISO 8601 in UTC; the order of decisions is that of their numbers.
        is_done: Whether stage and aliases have followed.
    """

    what: str
    version: str
    incumbent: str | None
    reason: str
    run: str | None = None
    evidence: dict[str, Any] = field(default_factory=dict)
    user: str = field(default_factory=user_name)
    time: str = field(default_factory=lambda: datetime.now(UTC).isoformat(timespec="microseconds"))
    is_done: bool = True

    @property
    def moves_production(self) -> bool:
        """Whether its version is in Production from then on."""
        return self.what != REFUSED


def register_model(store: Store, model_uri: str, name: str, about: VersionFacts, *, objection: str = "") -> Registration:
    """Register the logged model ``models:/m-...`` under `name`.

    A first version goes to Production unless there is an `objection`, in words; others become the candidate.
    """
    with _deciding(store, name):
        version = create_version(store, model_uri, name, about)
        pointers = read_pointers(store.client, name)
        present = pointers.version
        if present == version:  # registered before its run was cut short and went on
            return Registration(name, version, None, last_on(store.client, name, version))
        decision = None
        if present is None:
            reason = objection or "no version was in Production"
            decision = Decision(REFUSED if objection else FIRST, version, None, reason, run=about.run_id)
            _write_and_do(store.client, name, decision)
        if decision is None or decision.what == REFUSED:
            store.client.set_registered_model_alias(name, CANDIDATE_ALIAS, version)
        return Registration(name, version, present, decision, "" if pointers.agree else pointers.describe_disagreement())


def carry_out(store: Store, name: str, decision: Decision) -> None:
    """Write the decision down, move stage and aliases unless it refuses, and mark it as done; one process at a time.

    Whichever step a crash comes after, `complete` does the rest.

    Raises:
        RequestError: Another version has come to Production since the decision was made, or stage and aliases disagree and the
            decision is not the user's own word.
    """
    with _deciding(store, name):
        pointers = read_pointers(store.client, name)
        if not pointers.agree and decision.what != FORCED:
            raise RequestError(pointers.describe_disagreement())
        if pointers.version != decision.incumbent:
            raise RequestError(
                f"{name}: version {pointers.version} has come to Production meanwhile (version {decision.incumbent or 'none'} "
                "was compared with); nothing was changed: run it again"
            )
        _write_and_do(store.client, name, decision)


def complete(store: Store, name: str) -> Decision | None:
    """Carry out what a crash has cut short, and return it; None if nothing was."""
    if all(each.is_done for each in kept_decisions(store.client, name).values()):
        return None  # without a lock, for which who only reads may have no right
    with _deciding(store, name) as completed:
        return completed


@contextmanager
def _deciding(store: Store, name: str) -> Iterator[Decision | None]:
    """Keep interruptions and other processes of this machine out; gives what was completed on the way in, or None."""
    with shielded(), changing_model(name), alone_in(store.uri):
        kept = kept_decisions(store.client, name)
        number, last = max(kept.items(), default=(0, None))
        if last is None or last.is_done:
            yield None
            return
        _do(store.client, name, number, last)
        _log.warning("%s: the decision on version %s (%s), cut short before, is carried out now", name, last.version, last.what)
        yield last


def _write_and_do(client: MlflowClient, name: str, decision: Decision) -> None:
    number = max(kept_decisions(client, name), default=0) + 1
    _write(client, name, number, replace(decision, is_done=False))
    _do(client, name, number, decision)


def _do(client: MlflowClient, name: str, number: int, decision: Decision) -> None:
    if decision.moves_production:
        move_pointers(client, name, decision.version)
        if str(client.get_registered_model(name).aliases.get(CANDIDATE_ALIAS)) == decision.version:
            # MLflow lets only who manages the model delete an alias; where it stays it does no harm.
            with suppressing_refusals():
                client.delete_registered_model_alias(name, CANDIDATE_ALIAS)
    _write(client, name, number, replace(decision, is_done=True))


def _write(client: MlflowClient, name: str, number: int, decision: Decision) -> None:
    client.set_registered_model_tag(name, f"{_TAG}{number:06d}", json.dumps(asdict(decision)))


def kept_decisions(client: MlflowClient, name: str) -> dict[int, Decision]:
    """Return the decisions on a registered model by number, in order; none if there is no such model."""
    model = found_or_none(client.get_registered_model, name)
    tags = model.tags if model else {}
    kept = {int(tag.removeprefix(_TAG)): _parse(tag, value) for tag, value in tags.items() if _NUMBERED.fullmatch(tag)}
    return dict(sorted(kept.items()))


def _parse(tag: str, value: str) -> Decision:
    try:
        return build_plain(Decision, parse_json(value))
    except ValueError as error:
        raise RequestError(f"the tag {tag} holds no decision ({error}); correct or delete it in `mlflow ui`") from None


def last_on(client: MlflowClient, name: str, version: str) -> Decision | None:
    """Return the last decision on a version, or None."""
    decided = [each for each in kept_decisions(client, name).values() if each.version == version]
    return decided[-1] if decided else None


def read_history(store: Store, name: str) -> list[Decision]:
    """Return all decisions on a registered model, the oldest first.

    Raises:
        SourceNotFoundError: There is no such model.
    """
    versions = versions_of(store.client, name)
    kept = kept_decisions(store.client, name)
    # Before they were the model's, decisions were tags of its versions.
    older = [_parse(tag, value) for version in versions for tag, value in version.tags.items() if tag.startswith(_TAG)]
    if not versions and not kept:
        raise SourceNotFoundError(f"model_name={name}: nothing is registered under it; `mlflow ui` shows what is there")
    return [*sorted(older, key=lambda decision: decision.time), *kept.values()]


def version_before(store: Store, name: str) -> tuple[str, str]:
    """Return the version in Production and the one that it has replaced.

    Raises:
        RequestError: None is in Production, nothing says what was there before, or that version was deleted.
    """
    history = read_history(store, name)
    present = production_version(store.client, name)
    if present is None:
        raise RequestError(f"{name}: no version is in Production; histo promote --version N puts one there")
    moves = [decision for decision in history if decision.moves_production and decision.version == present]
    before = moves[-1].incumbent if moves else None
    if before is None:
        raise RequestError(f"{name}: nothing was in Production before version {present}; there is nothing to go back to")
    if before not in {str(each.version) for each in versions_of(store.client, name)}:
        raise RequestError(
            f"{name}: version {before}, which was in Production before version {present}, was deleted; put another there: "
            "histo promote --version N --force --reason TEXT"
        )
    return present, before
