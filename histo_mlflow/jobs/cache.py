"""List what the cache holds, or give its room back."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from histo_mlflow.errors import OptionError
from histo_mlflow.jobs import job
from histo_mlflow.options import JobOptions, option

if TYPE_CHECKING:
    from histo_mlflow.tiles.cache_entries import Entry

_LIST, _CLEAR = "list", "clear"


@dataclass(frozen=True, kw_only=True)
class Cache(JobOptions):
    """List what the cache holds, or give its room back.

    WHAT is `list` or `clear`. Unpacked tiles, features, fetched files and models in 8 bits lie in HISTO_CACHE_DIR (or your
    cache folder) so that they are made once; whatever is removed is made again when it is asked for. `clear` asks nothing, and
    leaves alone what a running command uses and what is another user's.
    """

    what: str = option(_LIST, "`list`, or `clear` to remove.", choices=(_LIST, _CLEAR), positional=True)
    older_than: float = option(0.0, "Of `clear`: only what was not used for so many days; 0 is everything.", at_least=0)

    def __post_init__(self) -> None:
        """Raise `OptionError` for an age where nothing is removed."""
        super().__post_init__()
        if self.older_than and self.what != _CLEAR:
            raise OptionError(f"older_than={self.older_than:g} goes with `histo cache clear`; leave it out to list")


@dataclass(frozen=True)
class CacheResult:
    """What is there.

    Attributes:
        entries: That are left, the largest first.
        n_removed: How many are gone.
        freed_bytes: What they took.
        in_use: That were to go, and were left because a command uses them.
    """

    entries: tuple["Entry", ...]
    n_removed: int
    freed_bytes: int
    in_use: tuple["Entry", ...]


@job("Keep", 5, example="histo cache clear --older-than 30", keeps=False)
def cache(options: Cache) -> CacheResult:
    """List or clear the cache, and return what it holds then."""
    from histo_mlflow.console import format_table, say
    from histo_mlflow.tiles.cache import cache_folder
    from histo_mlflow.tiles.cache_entries import FACT, list_entries, remove_entry

    found = list_entries()
    if options.what == _CLEAR:
        asked = [entry for entry in found if entry.age_days >= options.older_than]
        gone = [entry for entry in asked if remove_entry(entry)]
        in_use = tuple(entry for entry in asked if entry not in gone)
        freed = sum(entry.n_bytes for entry in gone)
        say(f"{len(gone)} of {len(found)} entries removed from {cache_folder()}, {freed / 1e6:.1f} MB freed")
        for entry in in_use:
            say(f"in use, and left: {entry.kind} {entry.source} ({entry.path.name})")
        return CacheResult(tuple(entry for entry in found if entry not in gone), len(gone), freed, in_use)
    shown = [entry for entry in found if entry.kind != FACT]
    facts = [entry for entry in found if entry.kind == FACT]
    lines = [(entry.source or entry.path.name, entry.kind, entry.n_bytes, entry.age_days) for entry in shown]
    if facts:
        n_bytes, newest = sum(entry.n_bytes for entry in facts), min(entry.age_days for entry in facts)
        lines.append((f"{len(facts)} small files", FACT, n_bytes, newest))
    if lines:
        rows = [[made_from, kind, f"{n_bytes / 1e6:.1f}", f"{days:.1f}"] for made_from, kind, n_bytes, days in lines]
        say(format_table(["made from", "what", "MB", "days unused"], rows))
    say(f"{sum(entry.n_bytes for entry in found) / 1e6:.1f} MB in {cache_folder()}")
    return CacheResult(tuple(found), 0, 0, ())
