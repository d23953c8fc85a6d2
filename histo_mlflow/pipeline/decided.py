"""A decision as Python and notebooks are told of it; imports nothing that jobs must wait for."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from histo_mlflow.pipeline.shown import Shown

if TYPE_CHECKING:
    from histo_mlflow.tracking.decisions import Decision


@dataclass(frozen=True)
class DecisionResult(Shown):
    """What was decided on a version of a registered model.

    Attributes:
        version: On which; the one that is then in Production, unless it was refused.
        what: ``first``, ``promoted``, ``refused``, ``forced`` or ``rolled back``.
        incumbent: Version that was in Production before, or None.
        reason: Figures, or the words of who decided.
        user: Who.
        time: When, ISO 8601 in UTC.
        run_id: Of the run that keeps the figures, or None.
    """

    version: str
    what: str
    incumbent: str | None
    reason: str
    user: str
    time: str
    run_id: str | None

    @classmethod
    def of(cls, kept: "Decision") -> "DecisionResult":
        """Return what is told of a decision as it is kept."""
        return cls(kept.version, kept.what, kept.incumbent, kept.reason, kept.user, kept.time, kept.run)
