import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from histo_mlflow.errors import RequestError
from histo_mlflow.tiles.tile_set import TileSet
from histo_mlflow.tiles.unlabelled import open_images
from tests.conftest import save_npz


def test_npz_is_indexed(work: Path, tiny_tiles: TileSet) -> None:
    source = open_images(str(save_npz(work / "a.npz", tiny_tiles)))
    ((block,),) = source.blocks([])
    assert source.column == "index"
    assert source.names[:2] == ["0", "1"]
    np.testing.assert_array_equal(block.images, tiny_tiles.images)


def test_folder_of_any_depth_and_size_keeps_going_past_bad_files(work: Path) -> None:
    (work / "in" / "deep").mkdir(parents=True)
    for name, size in (("b.png", 32), ("deep/a.jpg", 40), ("deep/c.tif", 32)):
        Image.new("RGB", (size, size), (size, 0, 0)).save(work / "in" / name)
    (work / "in" / "a.png").write_text("no image")
    Image.new("RGB", (10, 20)).save(work / "in" / "wide.png")

    failures: list[str] = []
    source = open_images(str(work / "in"))
    (blocks,) = source.blocks(failures)
    seen = {source.names[p].rsplit("/", 1)[-1] for block in blocks for p in block.positions}
    assert seen == {"b.png", "a.jpg", "c.tif"}
    assert [block.images.shape[1] for block in blocks] == [32, 40]
    assert len(failures) == 2
    assert "a.png is not an image" in failures[0]
    assert "wide.png has 10 x 20 px" in failures[1]


def test_folder_without_images(work: Path) -> None:
    with pytest.raises(RequestError, match="holds no images"):
        open_images(str(work))


def test_linked_folders_are_entered_and_hidden_ones_are_not(work: Path) -> None:
    for name in ("real", "in/.hidden"):
        (work / name).mkdir(parents=True)
        Image.new("RGB", (32, 32)).save(work / name / "a.png")
    (work / "in" / "linked").symlink_to(work / "real")
    assert open_images("in").names == ["in/linked/a.png"]


def test_a_link_that_points_upwards_gives_each_image_once(work: Path) -> None:
    (work / "in" / "a").mkdir(parents=True)
    Image.new("RGB", (32, 32)).save(work / "in" / "a" / "t.png")
    for link in ("up", "again"):
        (work / "in" / "a" / link).symlink_to(work / "in")
    (work / "in" / "@eaDir").mkdir()
    Image.new("RGB", (32, 32)).save(work / "in" / "@eaDir" / "thumb.png")
    assert open_images("in").names == ["in/a/t.png"]


def test_one_image_is_enough(work: Path) -> None:
    Image.new("RGB", (32, 32)).save(work / "t.PNG", format="PNG")
    assert open_images("t.PNG").names == ["t.PNG"]


def test_what_is_no_file_is_refused_at_once(work: Path) -> None:
    os.mkfifo(work / "pipe")
    for source in ("pipe", "/dev/zero"):
        with pytest.raises(RequestError, match="neither a file nor a folder"):
            open_images(source)
    (work / "in").mkdir()
    os.mkfifo(work / "in" / "pipe.png")
    with pytest.raises(RequestError, match="holds no images"):
        open_images("in")


def test_a_slide_is_called_one(work: Path) -> None:
    (work / "a.svs").write_bytes(b"II*\0")
    with pytest.raises(RequestError, match="is a whole slide"):
        open_images("a.svs")


def test_large_images_come_few_at_a_time(work: Path) -> None:
    (work / "in").mkdir()
    Image.new("RGB", (4096, 4096)).save(work / "in" / "0.png")
    for k in range(1, 4):
        (work / "in" / f"{k}.png").hardlink_to(work / "in" / "0.png")
    assert [[len(block.positions) for block in blocks] for blocks in open_images("in").blocks([])] == [[2], [2]]


def test_no_name_is_a_formula(work: Path) -> None:
    for name in ("=cmd|'calc'!A1.png", "-2+3.png", "@SUM(1).png", "+1.png", "\t1.png", "plain.png"):
        Image.new("RGB", (32, 32)).save(work / name)
    names = open_images(".").names
    assert sorted(names) == sorted(
        ["./=cmd|'calc'!A1.png", "./-2+3.png", "./@SUM(1).png", "./+1.png", "./\t1.png", "plain.png"]
    )
    assert all(Path(name).is_file() for name in names)
