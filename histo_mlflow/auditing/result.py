"""What an audit leaves behind: a page to look at, a file for programs, a list of tiles to leave out."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import cv2
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histo_mlflow.auditing.finding import CLEAR, SEVERITIES, UNASKED, Finding
from histo_mlflow.auditing.subject import Rows, Subject
from histo_mlflow.evaluation.page import write_page
from histo_mlflow.slides.doubts import write_doubts
from histo_mlflow.tiles.copies import merge_partitions

PAGE, FACTS, EXCLUDE, CLUSTERS, LABEL_ERRORS = "audit.html", "audit.json", "exclude.txt", "clusters.csv", "label_errors"
_SECTIONS = ("headline", "findings", "clear")
_SHOWN_PX = 160


@dataclass(frozen=True, eq=False)
class Audit:
    """A subject and what was found in it, the most serious first."""

    subject: Subject
    findings: Sequence[Finding]

    @cached_property
    def excluded(self) -> Rows:
        """Positions ``(n,)`` of the tiles of `data` that had better be left out."""
        rows = np.unique(np.concatenate([*(finding.exclude for finding in self.findings), np.zeros(0, np.int64)])).astype(
            np.int64
        )
        return rows[~self.subject.is_test[rows]]

    @cached_property
    def clusters(self) -> Rows:
        """Number of the cluster of each tile of `data` ``(n_data_tiles,)``: what shows the same tissue or is of one group."""
        n_data, groups = len(self.subject.data), self.subject.groups
        found = [each.clusters[:n_data] for each in self.findings if each.clusters is not None]
        return merge_partitions([np.arange(n_data), *found, *([] if groups is None else [groups])])

    def count(self, severity: str) -> int:
        """Return how many findings are of that severity."""
        return sum(finding.severity == severity for finding in self.findings)

    def figure(self, kind: str, name: str) -> float:
        """Return a figure of a finding, NaN if it has none of that name."""
        return next((dict(each.figures).get(name, math.nan) for each in self.findings if each.kind == kind), math.nan)

    def write(self, folder: Path) -> None:
        """Write page, facts, the list of tiles to leave out and the table of clusters into `folder`.

        Of tiles whose places on slides are known, labels in doubt are written for QuPath too.
        """
        folder.mkdir(parents=True, exist_ok=True)
        names = self.subject.names[self.excluded]
        (folder / EXCLUDE).write_text("".join(f"{name}\n" for name in names), encoding="utf-8")
        table = pd.DataFrame({"path": self.subject.data.names, "group": [f"cluster {number}" for number in self.clusters]})
        table.to_csv(folder / CLUSTERS, index=False)
        (folder / FACTS).write_text(json.dumps(self.as_json(), indent=1, ensure_ascii=False, allow_nan=False), encoding="utf-8")
        if (places := self.subject.data.on_slides) is not None:
            doubts = [doubt for each in self.findings for doubt in each.doubts]
            write_doubts(folder / LABEL_ERRORS, places, doubts, self.subject.data.classes)
        by_severity = {name: [each for each in self.findings if each.severity == name] for name in SEVERITIES}
        shown = [name for name in SEVERITIES if name not in (CLEAR, UNASKED)]
        values = {
            "title": f"Audit of {self.subject.data.source}", "audit": self, "subject": self.subject, "severities": shown,
            "found": [each for name in shown for each in by_severity[name]], "clear": by_severity[CLEAR],
            "unasked": by_severity[UNASKED], "small": self._small,
        }  # fmt: skip
        write_page(folder / PAGE, "audit", _SECTIONS, values)

    def _small(self, row: int) -> NDArray[np.uint8]:
        tile = self.subject.pixels(row)
        if len(tile) <= _SHOWN_PX:
            return tile
        return np.asarray(cv2.resize(tile, (_SHOWN_PX, _SHOWN_PX), interpolation=cv2.INTER_AREA), dtype=np.uint8)

    def as_json(self) -> dict[str, object]:
        """Return what ``audit.json`` holds: the sets by fingerprint, and each finding with the names of its tiles."""
        subject = self.subject
        return {
            "sets": {
                name: {"source": tiles.source, "fingerprint": tiles.fingerprint, "n_tiles": len(tiles)}
                for name, tiles in subject.sets.items()
            },
            "findings": [
                {
                    "kind": each.kind, "title": each.title, "severity": each.severity, "n": each.n, "summary": each.summary,
                    "advice": each.advice,
                    "figures": {name: None if math.isnan(value) else float(value) for name, value in each.figures.items()},
                    "tiles": {
                        name: subject.names[each.rows[subject.is_test[each.rows] == (name == "test_data")]].tolist()
                        for name in subject.sets
                    },
                    "table": None if each.table is None else [list(each.table.header), *map(list, each.table.rows)],
                }
                for each in self.findings
            ],
            "exclude": subject.names[self.excluded].tolist(),
        }  # fmt: skip
