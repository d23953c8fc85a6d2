"""Which whole groups to hold out: as many tiles as asked, each class on both sides; knows counts alone, not tiles."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Counts = NDArray[np.int64]
Choice = NDArray[np.bool_]

_TRY_ALL_UP_TO = 12
_N_STARTS = 16
_MAX_PAIRS = 2000
_LEEWAY = 0.05
_DRAWN_OF = 8
# The share counts for more than the classes: it is what was asked for. A class that lacks a side counts for more than both.
_WEIGHT_OF_SHARE = 10.0
_WEIGHT_OF_CLASS = 1000.0


@dataclass(frozen=True, eq=False)
class GroupedTiles:
    """Counts of the tiles of a set, and what is to be held out of them.

    Attributes:
        counts: ``(n_groups, n_classes)`` tiles of each group and class; no row and no column is empty.
        fraction: Share of the tiles that is to be held out.
    """

    counts: Counts
    fraction: float

    def hold_out(self, seed: int) -> Choice | None:
        """Return which groups to hold out, ``(n_groups,)``, or None if no choice was found with each class on both sides.

        The held-out share is the nearest to `fraction` that whole groups allow, within the size of the smallest group. Of the
        choices for which this holds, and whose shares of the classes are about as near (mean over the classes, at most 5 points
        worse), `seed` draws an eighth, and the nearest of these is returned. Of up to 12 groups all choices are looked at; of
        more, the ends of 16 descents from random choices.
        """
        random = np.random.default_rng(seed)
        choices = self._all_choices() if len(self.counts) <= _TRY_ALL_UP_TO else self._descents(random)
        held = choices @ self.counts
        possible = np.flatnonzero(self._n_one_sided(held) == 0)
        if not len(possible):
            return None
        excess = self._excess(held[possible])
        possible = possible[excess <= excess.min() + self.counts.sum(axis=1).min()]
        unlike = self._unlike(held[possible])
        possible = possible[unlike <= unlike.min() + _LEEWAY]
        drawn = np.sort(random.permutation(possible)[: -(-len(possible) // _DRAWN_OF)])
        return np.asarray(choices[drawn[self._unlike(held[drawn]).argmin()]])

    def class_at_fault(self) -> int:
        """Return the position of a class for which no choice was found; one in a single group comes first."""
        return int((self.counts > 0).sum(axis=0).argmin())

    def _n_one_sided(self, held: Counts) -> Counts:
        return np.asarray(((held == 0) | (held == self.counts.sum(axis=0))).sum(axis=-1))

    def _excess(self, held: Counts) -> NDArray[np.float64]:
        """Return how many tiles more or fewer are held out than asked."""
        return np.asarray(np.abs(held.sum(axis=-1) - self.fraction * self.counts.sum()))

    def _unlike(self, held: Counts) -> NDArray[np.float64]:
        """Return how far the held-out shares of the classes are from what was asked, mean over the classes."""
        return np.asarray(np.abs(held / self.counts.sum(axis=0) - self.fraction).mean(axis=-1))

    def _cost(self, held: Counts) -> NDArray[np.float64]:
        share = self._excess(held) / self.counts.sum()
        return np.asarray(_WEIGHT_OF_CLASS * self._n_one_sided(held) + _WEIGHT_OF_SHARE * share + self._unlike(held))

    def _all_choices(self) -> Choice:
        n_groups = len(self.counts)
        return np.asarray((np.arange(2**n_groups)[:, None] >> np.arange(n_groups)) % 2 == 1)

    def _descents(self, random: np.random.Generator) -> Choice:
        return np.stack([self._descend(random) for _ in range(_N_STARTS)])

    def _descend(self, random: np.random.Generator) -> Choice:
        """Hold out groups in random order up to the share, then move the group or the two that gain most until none gain."""
        n_groups = len(self.counts)
        order = random.permutation(n_groups)
        so_far = np.cumsum(self.counts[order], axis=0)
        n_first = 1 + int(self._excess(so_far).argmin())
        chosen = np.zeros(n_groups, dtype=np.bool_)
        chosen[order[:n_first]] = True
        held, cost = so_far[n_first - 1], self._cost(so_far[n_first - 1])
        while True:
            # All pairs of many groups are too many to look at: each step draws those that may be the first of two.
            firsts = random.permutation(n_groups)[: max(1, _MAX_PAIRS // n_groups)]
            change = np.where(chosen, -1, 1)[:, None] * self.counts
            moved = held + change + np.concatenate([np.zeros_like(change[:1]), change[firsts]])[:, None]
            costs = self._cost(moved)
            costs[1 + np.arange(len(firsts)), firsts] = np.inf
            first, second = np.unravel_index(costs.argmin(), costs.shape)
            if costs[first, second] >= cost:
                return chosen
            chosen[second] ^= True
            if first:
                chosen[firsts[first - 1]] ^= True
            held, cost = moved[first, second], costs[first, second]
