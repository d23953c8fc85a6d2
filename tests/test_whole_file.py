"""Files are whole or not there, and what stood there stays until the new one is whole."""

from pathlib import Path

import pytest

from histo_mlflow.base.whole_file import written_whole
from histo_mlflow.errors import WorkError


def test_the_file_appears_when_it_is_whole(tmp_path: Path) -> None:
    file = tmp_path / "new" / "a.csv"
    with written_whole(file) as draft:
        draft.write_text("half")
        assert not file.exists()
    assert file.read_text() == "half"
    assert [each.name for each in file.parent.iterdir()] == ["a.csv"]


def test_what_was_there_stays_if_the_work_fails(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_text("old")
    with pytest.raises(KeyError), written_whole(tmp_path / "a.csv") as draft:
        draft.write_text("half")
        raise KeyError("why")
    assert [each.read_text() for each in tmp_path.iterdir()] == ["old"]


def test_a_folder_takes_the_place_of_a_folder(tmp_path: Path) -> None:
    for text in ("old", "new"):
        with written_whole(tmp_path / "a.zarr") as draft:
            draft.mkdir()
            (draft / text).write_text(text)
    assert [each.name for each in (tmp_path / "a.zarr").iterdir()] == ["new"]
    assert [each.name for each in tmp_path.iterdir()] == ["a.zarr"]


def test_what_a_killed_process_has_left_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / ".a.zarr.draft").mkdir()
    (tmp_path / ".a.zarr.draft" / "left").write_text("half")
    with written_whole(tmp_path / "a.zarr") as draft:
        draft.mkdir()
    assert not list((tmp_path / "a.zarr").iterdir())


def test_what_the_system_refuses_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("no folder")
    with pytest.raises(WorkError, match=r"can't write .*check disk space"), written_whole(tmp_path / "file" / "a.csv"):
        pass
