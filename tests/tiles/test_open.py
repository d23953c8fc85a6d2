from pathlib import Path

import pytest

from histo_mlflow.errors import OptionError, SourceNotFoundError
from histo_mlflow.tiles.open import open_tiles
from histo_mlflow.tiles.tile_set import TileSet
from tests.conftest import save_npz


def test_a_hash_in_the_path_is_part_of_the_path(work: Path, tiny_tiles: TileSet) -> None:
    (work / "a#b").mkdir()
    save_npz(work / "a#b" / "c#d.npz", tiny_tiles)
    assert len(open_tiles("a#b/c#d.npz")) == 54


def test_demo_and_its_draws() -> None:
    assert open_tiles("demo").fingerprint == open_tiles("demo#0").fingerprint != open_tiles("demo#1").fingerprint
    with pytest.raises(OptionError, match="demo#1"):
        open_tiles("demo#x")


@pytest.mark.parametrize(
    ("source", "error"), [("", SourceNotFoundError), ("gone", SourceNotFoundError), (".#test", OptionError)]
)
def test_what_is_not_there(work: Path, source: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        open_tiles(source)
