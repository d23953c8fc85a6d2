"""What names of tiles say, by a pattern: who the patient is, which class; knows nothing of files and tables."""

import re
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from histo_mlflow.base.plain_values import reason_of, shorten
from histo_mlflow.errors import OptionError, RequestError
from histo_mlflow.tiles.options import GROUP, LEVELS
from histo_mlflow.tiles.tile_set import check_groups

PREFIX = "re:"

Names = NDArray[np.str_]

# Site is the code of the tissue source site, patient the participant; a slide's barcode goes on with sample, portion and slide
# (https://docs.gdc.cancer.gov/Encyclopedia/pages/TCGA_Barcode/).
TCGA_PATTERN = (
    r"re:(?P<slide>(?P<patient>TCGA-(?P<site>[A-Z0-9]{2})-[A-Z0-9]{4})"
    r"(?:-[0-9]{2}[A-Z])?(?:-[0-9]{2}[A-Z]?)?(?:-(?:DX|TS|BS|MS)[A-Z0-9]+)?)"
)


@dataclass(frozen=True)
class NamePattern:
    """A regular expression that is searched in the name of each tile.

    Attributes:
        option: Which option it is the value of.
        text: As it was given.
        compiled: What stands behind ``re:``.
    """

    option: str
    text: str
    compiled: re.Pattern[str]

    @classmethod
    def of(cls, option: str, text: str) -> "NamePattern":
        """Return the pattern that the value of an option means; raises `OptionError` if it is none, or marks nothing by ( )."""
        try:
            compiled = re.compile(text.removeprefix(PREFIX))
        except re.error as error:
            raise OptionError(f"{option}={text}: is not a pattern ({reason_of(error)}); for instance re:(p\\d+)_") from None
        if not compiled.groups:
            raise OptionError(f"{option}={text}: put what is meant into brackets, for instance re:(p\\d+)_")
        return cls(option, text, compiled)

    def find_labels(self, names: Names, source: str) -> list[str]:
        """Return what the first brackets hold in each name."""
        return [found[1] or "" for found in self._search(names, source)]

    def find_levels(self, names: Names, source: str) -> dict[str, Names]:
        """Return the ids by level, from coarse to fine: brackets called ``(?P<patient>...)``, or the first ones as `group`."""
        strangers = [level for level in self.compiled.groupindex if level not in LEVELS]
        if strangers:
            raise OptionError(f"{self.option}={self.text}: {strangers[0]} is no level; levels are {', '.join(LEVELS)}")
        found = self._search(names, source)
        levels: Mapping[str, int] = dict(self.compiled.groupindex) or {GROUP: 1}
        ids = {level: np.array([each[levels[level]] or "" for each in found]) for level in LEVELS if level in levels}
        where = f"{self.option}={self.text} in the names of {source}"
        return {level: check_groups(of_level, where=where) for level, of_level in ids.items()}

    def _search(self, names: Names, source: str) -> list[re.Match[str]]:
        found = [self.compiled.search(name) for name in names.tolist()]
        missing = [name for name, each in zip(names.tolist(), found, strict=True) if each is None]
        if missing:
            raise RequestError(
                f"{self.option}={self.text} is not in {len(missing)} of {len(names)} names of {source}, for instance "
                f"{shorten(missing[0])}; mend the pattern, or leave those tiles out (exclude)"
            )
        return [each for each in found if each is not None]
