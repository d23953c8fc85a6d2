"""Every request that can't be met ends with exit code 2 and one line, and leaves no run behind."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from PIL import Image

from histo_mlflow.cli import main
from histo_mlflow.tiles.tile_set import TileSet
from tests.conftest import save_npz

Make = Callable[[Path, TileSet], str]


def _npz(**change: Callable[[TileSet], np.ndarray]) -> Make:
    def make(work: Path, tiles: TileSet) -> str:
        arrays = {"data": tiles.images, "labels": tiles.labels}
        np.savez(work / "bad.npz", **{key: change[key](tiles) if key in change else value for key, value in arrays.items()})
        return "bad.npz"

    return make


def _folder(*images: tuple[str, Image.Image]) -> Make:
    def make(work: Path, _: TileSet) -> str:
        (work / "bad").mkdir()
        for name, image in images:
            (work / "bad" / name).parent.mkdir(exist_ok=True)
            image.save(work / "bad" / name)
        return "bad"

    return make


def _truncated(work: Path, tiles: TileSet) -> str:
    file = save_npz(work / "bad.npz", tiles)
    file.write_bytes(file.read_bytes()[:20_000])
    return "bad.npz"


def _text(work: Path, _: TileSet) -> str:
    (work / "bad.npz").write_text("no tiles")
    return "bad.npz"


def _no_train_split(work: Path, tiles: TileSet) -> str:
    np.savez(work / "bad.npz", test_images=tiles.images, test_labels=tiles.labels[:, None])
    return "bad.npz"


def _no_keys(work: Path, tiles: TileSet) -> str:
    np.savez(work / "bad.npz", pictures=tiles.images)
    return "bad.npz"


RGB = Image.new("RGB", (32, 32))
BAD_DATA: dict[str, tuple[Make, str]] = {
    "missing file": (lambda _w, _t: "bad.npz", "does not exist"),
    "not an npz": (_text, "is not an npz file"),
    "truncated npz": (_truncated, "is truncated"),
    "object array": (_npz(data=lambda t: np.array([None] * len(t))), "object array"),
    "missing keys": (_no_keys, "`data` and `labels` are needed"),
    "float images": (_npz(data=lambda t: t.images / 255), "uint8"),
    "wrong shape": (_npz(data=lambda t: t.images[..., 0]), "shape (54, 32, 32)"),
    "labels out of range": (_npz(labels=lambda t: t.labels + 3), "out of range"),
    "no train split": (_no_train_split, "bad.npz#test"),
    "empty folder": (_folder(), "holds no tiles"),
    "grey image": (_folder(("ADI/a.png", RGB), ("TUM/b.png", RGB.convert("L"))), "b.png is not a colour image"),
    "transparent image": (_folder(("ADI/a.png", RGB), ("TUM/b.png", Image.new("RGBA", (32, 32)))), "b.png is transparent"),
    "mixed sizes": (_folder(("ADI/a.png", RGB), ("TUM/b.png", Image.new("RGB", (40, 40)))), "give image_size"),
}


def _refused(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> str:
    with pytest.raises(SystemExit) as stopped:
        main(arguments)
    assert stopped.value.code == 2
    error = capsys.readouterr().err
    lines = [line for line in error.splitlines() if not line.startswith("Warning:")]
    assert len(lines) == 1, error
    assert lines[0].startswith("Error: ")
    assert MlflowClient().search_runs(["0"]) == []
    return lines[0]


@pytest.mark.parametrize("command", ["train", "cv"])
@pytest.mark.parametrize("case", BAD_DATA)
def test_bad_tiles(work: Path, tiny_tiles: TileSet, capsys: pytest.CaptureFixture[str], command: str, case: str) -> None:
    make, reason = BAD_DATA[case]
    message = _refused([command, "--data", make(work, tiny_tiles), "--weights", "none"], capsys)
    assert "bad" in message
    assert reason in message


def test_fewer_tiles_than_folds(tiny_npz: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "use fewer folds" in _refused(["cv", "--data", str(tiny_npz), "--folds", "7", "--weights", "none"], capsys)


@pytest.mark.parametrize(
    ("option", "value", "reason"),
    [
        ("--epochs", "0", "epochs=0"),
        ("--epochs", "many", "--epochs"),
        ("--learning-rate", "-1e-3", "learning_rate=-0.001"),
        ("--learning-rate", "nan", "learning_rate=nan"),
        ("--batch-size", "1", "batch_size=1"),
        ("--aug-cutoff", "-1", "aug_cutoff=-1"),
        ("--device", "abacus", "device=abacus"),
        ("--device", "cuda:77", "device=cuda:77"),
        ("--precision", "int1", "--precision"),
        ("--image-size", "8", "image_size=8"),
        ("--seed", "-1", "seed=-1"),
        ("--microns-per-pixel", "-1", "microns_per_pixel=-1"),
        ("--weights", "gone.pth", "gone.pth"),
        ("--test-data", "gone.npz", "gone.npz"),
        ("--config", "gone.yaml", "gone.yaml"),
        ("--register", "perhaps", "--register"),
        ("--epochz", "3", "--epochz (did you mean --epochs?)"),
        ("--lr", "3", "--lr (did you mean --learning-rate?)"),
    ],
)
@pytest.mark.parametrize("command", ["train", "cv"])
def test_bad_option(
    tiny_npz: Path, capsys: pytest.CaptureFixture[str], command: str, option: str, value: str, reason: str
) -> None:
    start = [command, "--data", str(tiny_npz)]
    assert reason in _refused([*start, option, value], capsys)


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["dance"], "dance"),
        (["evaluate", "--data", "gone.npz"], "gone.npz"),
        (["evaluate", "--model", "gone", "--data", "demo"], "model=gone"),
        (["evaluate"], "data is missing"),
        (["predict"], "data is missing"),
        (["compare", "models:/x/1", "models:/x/2"], "data is missing"),
        (["export"], "data is missing"),
        (["predict", "--data", "gone"], "gone"),
        (["predict", "--model", "models:/histo-b3/Production", "--data", "demo"], "models:/histo-b3/Production"),
        (["predict", "--output", "no/such/folder/a.csv", "--data", "demo"], "no/such/folder"),
    ],
)
def test_bad_request_to_score(work: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], reason: str) -> None:
    assert reason in _refused(arguments, capsys)


def test_debug_shows_where(work: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        main(["train", "--data", "gone.npz", "--debug"])
    assert "Traceback" in capsys.readouterr().err


def test_a_store_in_a_read_only_folder_is_work_that_failed(
    tiny_npz: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import mlflow

    mlflow.set_tracking_uri("sqlite:////sys/mlflow.db")
    with pytest.raises(SystemExit) as stopped:
        main(["train", "--data", str(tiny_npz), "--weights", "none"])
    assert stopped.value.code == 1
    assert "MLFLOW_TRACKING_URI" in capsys.readouterr().err
