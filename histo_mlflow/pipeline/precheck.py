"""What every training begins with: a short audit of its tiles for copies, leaks, contradictory labels and damage.

The whole audit is a job of its own; this part of it takes some milliseconds a tile, once: the cache keeps what it says.
"""

import json
from dataclasses import asdict, dataclass, replace

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.auditing.checks import CHEAP, find_all, look_at
from histo_mlflow.auditing.finding import DOUBTFUL, SERIOUS, Finding
from histo_mlflow.auditing.subject import Subject
from histo_mlflow.base.plain_values import shorten
from histo_mlflow.errors import RequestError
from histo_mlflow.evaluation.caveats import LEAK_NOTE
from histo_mlflow.tiles.cache import cache_key, recall, remember
from histo_mlflow.tiles.copies import find_copies, merge_partitions
from histo_mlflow.tiles.tile_set import TileSet

_VERSION = 2  # of what is kept
_LEAK = "_leak"


@dataclass(frozen=True)
class Precheck:
    """What a short audit has found.

    Attributes:
        copied: Positions of the tiles that have copies or near-duplicates.
        cluster: The number of the cluster of each of them.
        found: Numbers of tiles by what was found of them, in words.
        leaked: Names of a test tile and of a tile to learn from that are the same, of each such cluster.
    """

    copied: list[int]
    cluster: list[int]
    found: dict[str, int]
    leaked: list[tuple[str, str]]

    def describe(self) -> str:
        """Return what was found in one line."""
        found = ", ".join(f"{title} {n}" for title, n in self.found.items())
        return f"audit: {found}" if found else "audit: no copies, no damaged tiles"

    def copies(self, n_tiles: int) -> NDArray[np.int64]:
        """Return a number for each tile ``(n_tiles,)``, the same for copies of one another."""
        numbers = np.arange(n_tiles)
        numbers[self.copied] = np.array(self.cluster, dtype=np.int64) + n_tiles
        return numbers


def check_tiles(tiles: TileSet, test: TileSet | None, *, allow_leak: str | None) -> TileSet:
    """Return the tiles to learn from with their copies known, and what was found in their notes.

    Of tiles that come as features only copies are looked for, bit for bit and within the set.

    Raises:
        RequestError: Test tiles are among the tiles to learn from, and `allow_leak` does not say why they may.
    """
    notes: list[str] = []
    if test is not None and test.fingerprint == tiles.fingerprint:
        notes.append(_allowed(allow_leak, f"test_data={test.source} holds the same tiles as data"))
    if tiles.encoder:
        return replace(tiles, copies=find_copies(tiles), notes=(*tiles.notes, *notes))
    found = _precheck(tiles, test)
    if found.leaked and test is not None and not notes:
        of_test, of_data = found.leaked[0]
        what = (
            f"test_data={test.source}: {len(found.leaked)} tile(s) or clusters of tiles are in data too, {shorten(of_test)} as "
            f"{shorten(of_data)} for one"
        )
        notes.append(_allowed(allow_leak, what))
    return replace(tiles, copies=found.copies(len(tiles)), notes=(*tiles.notes, found.describe(), *notes))


def _allowed(allow_leak: str | None, what: str) -> str:
    """Return the note on a leak that is there and is allowed; raises `RequestError` if it is not."""
    if allow_leak is None:
        raise RequestError(
            f"{what}: its figures would say nothing about new tiles; leave them out (`histo audit` lists them for exclude), or "
            "say why they may be there: --allow-leak REASON"
        )
    return f"{LEAK_NOTE}: {shorten(allow_leak)}"


def _precheck(tiles: TileSet, test: TileSet | None) -> Precheck:
    key = cache_key("precheck", _VERSION, tiles.fingerprint, "" if test is None else test.fingerprint)
    if kept := recall(key):
        return Precheck(kept["copied"], kept["cluster"], kept["found"], [(a, b) for a, b in kept["leaked"]])
    # Of drawings it is known what they are.
    checks = CHEAP[:1] if tiles.is_synthetic else CHEAP
    subject = look_at(tiles, test, checks=checks)
    done = _sum_up(subject, find_all(subject, checks))
    remember(key, json.loads(json.dumps(asdict(done))))
    return done


def _sum_up(subject: Subject, findings: list[Finding]) -> Precheck:
    partitions = [finding.clusters for finding in findings if finding.clusters is not None]
    clusters = merge_partitions(partitions) if partitions else np.arange(len(subject))
    n_data = len(subject.data)
    counts = np.bincount(clusters[:n_data], minlength=len(subject))
    copied = np.flatnonzero(counts[clusters[:n_data]] > 1)
    found = {
        finding.title: finding.n
        for finding in findings
        if finding.severity in {SERIOUS, DOUBTFUL} and finding.n and not finding.kind.endswith(_LEAK)
    }
    return Precheck(copied.tolist(), clusters[copied].tolist(), found, _leaked(subject, clusters))


def _leaked(subject: Subject, clusters: NDArray[np.int64]) -> list[tuple[str, str]]:
    both = np.intersect1d(clusters[subject.is_test], clusters[~subject.is_test])
    own, names = clusters[~subject.is_test], subject.names
    of_data, of_test = ({int(number): row for row, number in enumerate(side)} for side in (own, clusters[subject.is_test]))
    return [(str(names[len(own) + of_test[number]]), str(names[of_data[number]])) for number in both.tolist()]
