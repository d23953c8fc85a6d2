"""Tiles that belong together because they show the same tissue: what is said of clusters."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from histo_mlflow.auditing.finding import CLEAR, DOUBTFUL, NOTE, SERIOUS, Finding, Strip
from histo_mlflow.auditing.subject import Rows, Subject
from histo_mlflow.base.counting import many

_STRIPS, _PER_STRIP = 8, 6
_VAL_FRACTION = 0.2  # of the split that the expected leak is computed for


@dataclass(frozen=True, eq=False)
class Kind:
    """How tiles of a cluster are related.

    Attributes:
        name: ``exact``, ``near`` or ``sibling``.
        words: For people: "exact duplicates".
        is_copy: Whether one of them says all that the others say, so that the others can be left out.
        how: What makes tiles so related.
    """

    name: str
    words: str
    is_copy: bool
    how: str


@dataclass(frozen=True, eq=False)
class Clusters:
    """Clusters of tiles of a subject.

    Attributes:
        subject: Whose tiles.
        of_tile: ``(n_tiles,)``, number of the cluster of each.
        kind: How they are related.
    """

    subject: Subject
    of_tile: Rows
    kind: Kind

    @cached_property
    def members(self) -> list[Rows]:
        """The tiles of each cluster that has more than one, the largest first."""
        order = np.argsort(self.of_tile, kind="stable")
        runs = np.split(order, np.flatnonzero(np.diff(self.of_tile[order])) + 1)
        return sorted((run for run in runs if len(run) > 1), key=lambda run: (-len(run), run[0]))

    def find(self) -> Iterator[Finding]:
        """Yield what is to be said: within a set, across classes, across sets."""
        yield self._within()
        yield self._conflicts()
        if self.subject.test is not None:
            yield self._leak()

    def _within(self) -> Finding:
        kind, subject = self.kind, self.subject
        rows = _joined(self.members)
        if not len(rows):
            return Finding(f"{kind.name}_duplicates", _title(kind.words), CLEAR, f"No {kind.words} ({kind.how}).")
        surplus = _joined([run[1:] for run in self.members])
        leak = self.expected_leak()
        summary = (
            f"{len(rows)} of {len(subject)} tiles are in {many(len(self.members), 'cluster')} of {kind.words} ({kind.how}); "
            f"{len(surplus)} could be left out. A random split of data, 80 to 20, would put a relative of "
            f"{100 * leak:.1f} % of its validation tiles among the training tiles."
        )
        advice = (
            "Leave out all but one of each cluster (exclude.txt names them)."
            if kind.is_copy
            else "Keep the tiles of a cluster on one side of every split: give patients or slides as groups, or "
            "groups=audit/clusters.csv."
        )
        return Finding(
            f"{kind.name}_duplicates", _title(kind.words), DOUBTFUL if leak > 0.001 else NOTE, summary, advice,
            rows=rows,
            exclude=surplus if kind.is_copy else rows[:0],
            strips=[self._strip(run) for run in self.members[:_STRIPS]],
            figures={"clusters": len(self.members), "surplus": len(surplus), "expected_leak": leak},
            clusters=self.of_tile,
        )  # fmt: skip

    def expected_leak(self) -> float:
        """Return the share of validation tiles that would have a relative in training, in random splits of `data`."""
        own = self.of_tile[: len(self.subject.data)]
        others = np.bincount(own)[own] - 1
        return float((1 - _VAL_FRACTION**others).mean())

    def _conflicts(self) -> Finding:
        subject, kind = self.subject, self.kind
        runs = [run for run in self.members if len(np.unique(subject.labels[run])) > 1]
        name, title = f"{kind.name}_label_conflicts", f"{_title(kind.words)} of different classes"
        if not runs:
            return Finding(name, title, CLEAR, f"No {kind.words} with different labels.")
        rows = _joined(runs)
        summary = f"{len(rows)} tiles in {many(len(runs), 'cluster')} of {kind.words} have different labels."
        severity = SERIOUS if kind.is_copy else DOUBTFUL
        advice = "One label at most is right: correct them, or leave out the whole cluster (exclude.txt names them)."
        if not kind.is_copy:
            advice = (
                "The tiles overlap or show the same tissue: look which label is right; where both are, the border is between."
            )
        strips = [self._strip(run) for run in runs[:_STRIPS]]
        excluded = rows if kind.is_copy else rows[:0]
        return Finding(name, title, severity, summary, advice, rows, excluded, strips, figures={"clusters": len(runs)})

    def _leak(self) -> Finding:
        subject, kind = self.subject, self.kind
        runs = [run for run in self.members if len(np.unique(subject.is_test[run])) > 1]
        name, title = f"{kind.name}_leak", f"{_title(kind.words)} in data and test_data"
        if not runs:
            return Finding(name, title, CLEAR, f"No tile of test_data has {kind.words} in data.", figures={"leak": 0.0})
        rows = _joined(runs)
        tested, learnt = rows[subject.is_test[rows]], rows[~subject.is_test[rows]]
        share = len(tested) / subject.is_test.sum()
        summary = (
            f"{len(tested)} of {subject.is_test.sum()} test tiles ({100 * share:.1f} %) have {kind.words} among "
            f"{many(len(learnt), 'tile')} of data: figures on them tell what was remembered, not what was learnt."
        )
        advice = "Leave those tiles of data out (exclude.txt names them), or score on test tiles without relatives."
        strips = [self._strip(run) for run in runs[:_STRIPS]]
        return Finding(name, title, SERIOUS, summary, advice, rows, learnt, strips, figures={"leak": float(share)})

    def _strip(self, run: Rows) -> Strip:
        # One of each set and class first: what is remarkable of a large cluster must be in sight.
        subject = self.subject
        keys = subject.labels[run] * 2 + subject.is_test[run]
        first = np.unique(keys, return_index=True)[1]
        order = np.r_[run[np.sort(first)], np.delete(run, first)][:_PER_STRIP]
        return Strip(f"{len(run)} tiles" if len(run) > _PER_STRIP else "", tuple(int(row) for row in order))


def _joined(runs: list[Rows]) -> Rows:
    return np.concatenate([*runs, np.zeros(0, np.int64)]).astype(np.int64)


def _title(words: str) -> str:
    return words[0].upper() + words[1:]
