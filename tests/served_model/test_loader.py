"""The exported EfficientNet-B3 and the loader that travels with it."""

import base64
import hashlib
import io
import json
import os
import re
import shutil
import subprocess
import sys
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import mlflow
import numpy as np
import pandas as pd
import pytest
import torch
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.models.utils import _enforce_schema
from mlflow.pyfunc import PyFuncModel
from PIL import Image

from histo_mlflow.errors import RequestError
from histo_mlflow.learning.compute import Compute, seed_everything
from histo_mlflow.learning.infer import infer
from histo_mlflow.models.classifier import TileClassifier, with_temperature
from histo_mlflow.models.facts import ModelFacts
from histo_mlflow.served_model import loader, requests
from histo_mlflow.tiles.image_files import decode_image
from histo_mlflow.tracking.model_flavor import load_saved, save_model

FACTS = ModelFacts(
    tuple("abcdefghi"), 32, "f" * 64, is_synthetic=True, microns_per_pixel=0.5, selected="epoch 1", abstain_below=0.5
)


@pytest.fixture(scope="module")
def network() -> TileClassifier:
    """One whose batch norms and temperature do something, as after training."""
    seed_everything(0)
    made = TileClassifier(n_classes=9, tile_size_px=32)
    for norm in made.modules():
        if isinstance(norm, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(norm.weight, 0.5, 1.5)
            torch.nn.init.normal_(norm.bias, std=0.1)
    with torch.inference_mode():
        for _ in range(20):
            made(torch.randint(0, 256, (8, 32, 32, 3), dtype=torch.uint8))
    return with_temperature(made.eval(), 1.5)


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory, network: TileClassifier) -> Path:
    folder = tmp_path_factory.mktemp("model") / "m"
    save_model(str(folder), Model(), network=network, facts=FACTS, card="# A card")
    return folder


@pytest.fixture(scope="module")
def exported(saved: Path) -> torch.nn.Module:
    return mlflow.pytorch.load_model(str(saved))


@pytest.fixture(scope="module")
def served(saved: Path) -> PyFuncModel:
    return mlflow.pyfunc.load_model(str(saved))


@pytest.mark.parametrize("shape", [(1, 32, 32, 3), (2, 32, 32, 3), (7, 224, 224, 3), (3, 28, 28, 3), (2, 40, 56, 3)])
def test_exported_graph_equals_the_network_for_any_number_and_size(
    network: TileClassifier, exported: torch.nn.Module, shape: tuple[int, ...]
) -> None:
    tiles = torch.randint(0, 256, shape, dtype=torch.uint8)
    with torch.inference_mode():
        torch.testing.assert_close(exported(tiles), network(tiles), rtol=1e-4, atol=1e-4)


def test_exported_graph_can_be_moved_to_another_device(saved: Path) -> None:
    """The meta device stands for any other: whatever stayed behind on the CPU would make the call fail."""
    moved = mlflow.pytorch.load_model(str(saved)).to("meta")
    tensors = [*moved.parameters(), *moved.buffers()]
    assert {tensor.device.type for tensor in tensors} == {"meta"}
    assert moved(torch.zeros((3, 40, 40, 3), dtype=torch.uint8, device="meta")).shape == (3, 9)


def test_export_leaves_the_network_as_it_was(network: TileClassifier, saved: Path) -> None:
    assert saved.exists()
    assert network.backbone.features[0][0].weight.requires_grad
    assert next(network.parameters()).device.type == "cpu"


def test_answers_with_a_table(saved: Path, exported: torch.nn.Module) -> None:
    tiles = np.random.default_rng(0).integers(0, 256, (130, 32, 32, 3), dtype=np.uint8)  # more than one batch
    table = mlflow.pyfunc.load_model(str(saved)).predict(tiles)
    assert list(table.columns) == ["label", *(f"prob_{name}" for name in FACTS.classes)]
    with torch.inference_mode():
        expected = torch.softmax(exported(torch.from_numpy(tiles)).double(), dim=1).numpy()
    np.testing.assert_allclose(table.iloc[:, 1:].to_numpy(), expected, atol=1e-5)
    assert table["label"].tolist() == [FACTS.classes[k] for k in expected.argmax(axis=1)]
    assert table.iloc[:, 1:].sum(axis=1).to_numpy() == pytest.approx(1)


GOOD = np.random.default_rng(1).integers(0, 256, (3, 32, 32, 3), dtype=np.uint8)


def _encoded(tile: np.ndarray, form: str = "PNG", mode: str = "RGB") -> bytes:
    file = io.BytesIO()
    Image.fromarray(tile).convert(mode).save(file, form)
    return file.getvalue()


def _base64(tile: np.ndarray) -> str:
    return base64.b64encode(_encoded(tile)).decode()


FILES = [_encoded(tile) for tile in GOOD]

SAME = {
    "whole numbers of another type, as JSON gives them": GOOD.astype(np.int64),
    "nested lists": GOOD.tolist(),
    "table of bytes": pd.DataFrame({"image": FILES}),
    "table with further columns": pd.DataFrame({"path": "abc", "image": FILES}),
    "column of another name": pd.DataFrame({"0": [bytearray(file) for file in FILES]}),
    "list of bytes": FILES,
    "base64 in a table": pd.DataFrame({"image": [_base64(tile) for tile in GOOD]}),
    "base64 in an array": np.array([_base64(tile) for tile in GOOD]),
    "base64 by name": {"image": np.array([_base64(tile) for tile in GOOD])},
    "TIFF": [_encoded(tile, "TIFF") for tile in GOOD],
    "opaque alpha": [_encoded(tile, "PNG", "RGBA") for tile in GOOD],
}


@pytest.mark.parametrize("form", SAME)
def test_every_way_in_gives_the_same_answer(served: PyFuncModel, form: str) -> None:
    pd.testing.assert_frame_equal(served.predict(SAME[form]), served.predict(GOOD))


def test_jpeg_is_what_predict_would_read(served: PyFuncModel, tmp_path: Path) -> None:
    (tmp_path / "tile.jpg").write_bytes(_encoded(GOOD[0], "JPEG"))
    pd.testing.assert_frame_equal(
        served.predict([(tmp_path / "tile.jpg").read_bytes()]), served.predict(decode_image(tmp_path / "tile.jpg")[None])
    )


def _bomb() -> bytes:
    """A PNG of 2 kB whose header promises 30,000 x 30,000 px."""
    header = b"IHDR" + (30_000).to_bytes(4, "big") * 2 + bytes([8, 2, 0, 0, 0])
    chunk = len(header[4:]).to_bytes(4, "big") + header + zlib.crc32(header).to_bytes(4, "big")
    data = b"IDAT" + zlib.compress(bytes(100_000))
    chunk += (len(data) - 4).to_bytes(4, "big") + data + zlib.crc32(data).to_bytes(4, "big")
    return b"\x89PNG\r\n\x1a\n" + chunk


BAD = {
    "float32": (GOOD.astype(np.float32), "tiles are float32"),
    "floats in lists": ((GOOD / 255).tolist(), "tiles are float64"),
    "booleans": (GOOD > 9, "tiles are bool"),
    "too large a number": (
        np.stack([GOOD[0].astype(np.int64), GOOD[1].astype(np.int64) + 1000]),
        "row 1 holds values from 100",
    ),
    "negative": (GOOD.astype(np.int64) - 128, "row 0 holds values from -128"),
    "one tile without batch": (GOOD[0], "(n_tiles, height, width, 3)"),
    "four channels": (np.zeros((2, 32, 32, 4), np.uint8), "shape (2, 32, 32, 4)"),
    "no pixels": (np.zeros((2, 0, 32, 3), np.uint8), "shape (2, 0, 32, 3)"),
    "no image": ([FILES[0], b"GIF89a nonsense"], "row 1 is not an image"),
    "cut off": ([FILES[0], FILES[1], FILES[2][:500]], "row 2 can't be decoded"),
    "no base64": (pd.DataFrame({"image": ["%%%"]}), "row 0 is not base64"),
    "missing": (pd.DataFrame({"image": [FILES[0], None]}), "row 1 is NoneType"),
    "other size": ([FILES[0], _encoded(np.zeros((40, 40, 3), np.uint8))], "row 1 is 40 x 40 px and row 0 is 32 x 32 px"),
    "not square": (np.zeros((2, 40, 32, 3), np.uint8), "each tile has 32 x 40 px and must be square"),
    "one pixel": (np.zeros((2, 1, 1, 3), np.uint8), "each tile has 1 x 1 px and must have at least 2 x 2"),
    "image that is not square": ([FILES[0], _encoded(np.zeros((40, 32, 3), np.uint8))], "row 1 has 32 x 40 px and must be"),
    "image of one pixel": ([_encoded(np.zeros((1, 1, 3), np.uint8))], "row 0 has 1 x 1 px and must have at least 2 x 2"),
    "list of nothing in a list": ([[]], "tiles have shape (1, 0)"),
    "grey": ([_encoded(GOOD[0], "PNG", "L")], "row 0 is not a colour image (mode L)"),
    "transparent": ([_encoded(np.zeros((9, 9, 4), np.uint8), "PNG", "RGBA")], "row 0 is transparent"),
    "bomb": ([FILES[0], _bomb()], "row 1 "),
    "two columns": (pd.DataFrame({"a": FILES, "b": FILES}), "one column 'image'"),
    "rows of unlike lengths": ([None, []], "tiles are not an array"),
    "another name": ({"tile": np.array(FILES)}, "one column 'image' of encoded images; got ['tile']"),
}


@pytest.mark.parametrize("form", BAD)
def test_bad_input_is_refused(served: PyFuncModel, form: str) -> None:
    given, words = BAD[form]
    with pytest.raises(MlflowException, match=re.escape(words)) as raised:
        served.predict(given)
    assert raised.value.get_http_status_code() == 400
    assert len(str(raised.value)) < 300


def test_large_tiles_go_in_small_batches() -> None:
    sizes = [len(batch) for batch in requests.batches_of(np.zeros((3, 4096, 4096, 3), np.uint8))]
    assert sizes == [2, 1]
    assert [len(batch) for batch in requests.batches_of(np.zeros((130, 8, 8, 3), np.uint8))] == [128, 2]


def test_a_request_of_many_large_images_is_refused_before_they_are_decoded() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (4096, 4096)).save(buffer, format="PNG")
    with pytest.raises(MlflowException, match="20 images of 4096 x 4096 px are too many for one request: send 8 at most"):
        requests.batches_of([buffer.getvalue()] * 20)
    requests.batches_of([buffer.getvalue()] * 8)


@pytest.mark.parametrize("given", [np.zeros((0, 32, 32, 3), np.uint8), [], np.array([]), pd.DataFrame({"image": []})], ids=str)
def test_no_tiles_are_answered_with_the_types_of_the_signature(served: PyFuncModel, given: object) -> None:
    none, some = (served.predict(tiles, params={"abstain": True}) for tiles in (given, GOOD))
    assert len(none) == 0
    assert none.dtypes.to_dict() == some.dtypes.to_dict()
    schema = served.metadata.signature.outputs
    assert _enforce_schema(none, schema).columns.tolist() == schema.input_names()


class _Watching(torch.nn.Module):
    """Notes whether TF32 may be used when it is called."""

    def forward(self, tiles: torch.Tensor) -> torch.Tensor:
        self.seen = [torch.backends.cudnn.conv.fp32_precision, torch.backends.cuda.matmul.fp32_precision]
        return torch.zeros((len(tiles), 9))


def test_figures_and_answers_use_no_tf32_and_leave_the_setting_of_others() -> None:
    before = torch.backends.cudnn.conv.fp32_precision
    network, cpu = _Watching(), torch.device("cpu")
    for ask in (
        loader.ServedModel(network, {"classes": list(FACTS.classes)}, cpu).predict,
        lambda tiles: infer(network, tiles, compute=Compute(cpu, is_bf16=False)),
    ):
        network.seen = []
        ask(GOOD)
        assert network.seen == ["ieee", "ieee"]
    assert torch.backends.cudnn.conv.fp32_precision == before == "tf32", "torch's default, or this test proves nothing"


def test_two_models_with_other_loaders_share_no_code(
    saved: Path, served: PyFuncModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A later version of the loader, in the same process: each model must answer with its own."""
    later = shutil.copytree(Path(loader.__file__).parent, tmp_path / "served_model") / "loader.py"
    later.write_text(later.read_text().replace('f"prob_{name}"', 'f"p_{name}"'))
    monkeypatch.setattr(loader, "__file__", str(later))
    small = torch.nn.Module()
    small.forward = lambda tiles: (tiles * torch.ones(1)).mean(dim=(1, 2))  # type: ignore[method-assign]
    save_model(str(tmp_path / "later"), Model(), network=small, facts=replace(FACTS, classes=("x", "y", "z")), card="")

    tiles = np.zeros((1, 8, 8, 3), np.uint8)
    first, second = (mlflow.pyfunc.load_model(str(path)) for path in (saved, tmp_path / "later"))
    assert list(second.predict(tiles).columns) == ["label", "p_x", "p_y", "p_z"]
    for one in (first, served):
        assert list(one.predict(tiles).columns)[1] == "prob_a"
    assert len([name for name in sys.modules if re.fullmatch(r"histo_served_model_\w+\.loader", name)]) >= 2


def test_a_changed_loader_is_refused(saved: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(saved, tmp_path / "copy")
    (code,) = (copy / "code").iterdir()
    with (code / "requests.py").open("a") as file:
        file.write("# changed\n")
    # In a process of its own: this one has the unchanged loader under the same name already.
    done = subprocess.run(
        [sys.executable, "-c", f"import mlflow; mlflow.pyfunc.load_model({str(copy)!r})"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode != 0
    assert "is not the one that" in done.stderr


def test_a_changed_weight_file_is_refused(saved: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(saved, tmp_path / "copy")
    with (copy / "data" / "model.pt2").open("ab") as file:
        file.write(b"x")
    with pytest.raises(MlflowException, match="not the file that was logged"):
        mlflow.pyfunc.load_model(str(copy))


def test_folder_holds_facts_and_nothing_that_unpickles(saved: Path) -> None:
    assert load_saved(saved)[1] == FACTS
    stored = json.loads((saved / "data" / "model.json").read_text())
    assert len(stored["weights_sha256"]) == len(stored["loader_sha256"]) == 64
    assert (saved / "model_card.md").read_text() == "# A card"
    files = {path.name for path in saved.rglob("*") if path.is_file()}
    assert files == {
        "MLmodel", "__init__.py", "decoding.py", "folding.py", "kept_backbone.py", "loader.py", "precision.py", "requests.py",
        "model.pt2", "model.json", "model_card.md", "requirements.txt", "conda.yaml", "python_env.yaml",
    }  # fmt: skip
    assert {line.split("==")[0] for line in (saved / "requirements.txt").read_text().split()} == {
        "mlflow", "torch", "numpy", "pandas", "pillow",
    }  # fmt: skip


class _Attack:
    """Says that it ran when it is unpickled."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.mark,)


def _pickle_in_place_of_the_graph(model: Path, mark: Path) -> None:
    torch.save(_Attack(mark), model / "data" / "model.pth")
    (model / "data" / "pickle_module_info.txt").write_text("mlflow.pytorch.pickle_module")
    (model / "data" / "model.pt2").unlink()


def _pickle_among_the_sample_inputs(model: Path, mark: Path) -> None:
    file = model / "data" / "model.pt2"
    with zipfile.ZipFile(file) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    (sample,) = (name for name in members if name.endswith("sample_inputs/model.pt"))
    buffer = io.BytesIO()
    torch.save(((_Attack(mark),), {}), buffer)
    members[sample] = buffer.getvalue()
    with zipfile.ZipFile(file, "w") as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    facts = json.loads((model / "data" / "model.json").read_text())  # whoever can write one file can write the other
    facts["weights_sha256"] = hashlib.sha256(file.read_bytes()).hexdigest()
    (model / "data" / "model.json").write_text(json.dumps(facts))


def _code_beside_the_loader(model: Path, mark: Path) -> None:
    for name in ("sitecustomize", "torchvision", "loader"):
        (model / "code" / f"{name}.py").write_text(f"open({str(mark)!r}, 'w')")
    (model / "data" / "extra.py").write_text(f"open({str(mark)!r}, 'w')")


def _other_weights(model: Path, _mark: Path) -> None:
    file = model / "data" / "model.pt2"
    content = bytearray(file.read_bytes())
    content[len(content) // 2 : len(content) // 2 + 1000] = bytes(1000)
    file.write_bytes(content)


@pytest.mark.parametrize(
    ("attack", "reason"),
    [
        (_pickle_in_place_of_the_graph, "does not hold what histo-mlflow writes"),
        (_pickle_among_the_sample_inputs, "Deserializing model using pickle is disallowed"),
        (_code_beside_the_loader, "does not hold what histo-mlflow writes"),
        (_other_weights, "its SHA-256 differs"),
    ],
)
def test_a_model_runs_no_code_of_its_own(
    saved: Path, tmp_path: Path, attack: Callable[[Path, Path], None], reason: str
) -> None:
    model, mark = tmp_path / "m", tmp_path / "ran"
    shutil.copytree(saved, model)
    attack(model, mark)
    path = list(sys.path)
    with pytest.raises(RequestError, match=reason):
        load_saved(model)
    assert sys.path == path
    assert not mark.exists()


def test_a_model_as_it_was_saved_is_loaded_without_its_code(saved: Path, network: TileClassifier) -> None:
    path = list(sys.path)
    loaded, facts = load_saved(saved)
    assert sys.path == path
    assert facts == FACTS
    tiles = torch.randint(0, 256, (2, 32, 32, 3), dtype=torch.uint8)
    torch.testing.assert_close(loaded(tiles), network(tiles), rtol=1e-4, atol=1e-4)


def _facts_changed(**changes: object) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        file = model / "data" / "model.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return change


def _pipe(name: str) -> Callable[[Path], None]:
    def change(model: Path) -> None:
        (model / name).unlink()
        os.mkfifo(model / name)

    return change


def _other_loader(model: Path) -> None:
    text = (model / "MLmodel").read_text()
    (model / "MLmodel").write_text(re.sub(r"loader_module: .*", "loader_module: os", text))


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (_facts_changed(classes=["a", "b"]), "9 outputs and names 2 classes"),
        (_facts_changed(tile_size_px=64), "resizes to"),
        (_facts_changed(tile_size_px=10**9), "not one of histo-mlflow"),
        (_facts_changed(classes="abcdefghi"), "not one of histo-mlflow"),
        (_facts_changed(classes=["a"] * 9), "not one of histo-mlflow"),
        (_facts_changed(temperature="warm"), "not one of histo-mlflow"),
        (_pipe("MLmodel"), "not one of histo-mlflow"),
        (_pipe("data/model.json"), "not one of histo-mlflow"),
        (_pipe("data/model.pt2"), "does not hold what histo-mlflow writes"),
        (_other_loader, "not one of histo-mlflow"),
    ],
)
def test_facts_that_are_not_of_the_graph_are_refused(
    saved: Path, tmp_path: Path, change: Callable[[Path], None], reason: str
) -> None:
    model = tmp_path / "m"
    shutil.copytree(saved, model)
    change(model)
    with pytest.raises(RequestError, match=reason) as caught:
        load_saved(model)
    assert "\n" not in str(caught.value)


def test_mlflow_still_has_the_check_that_an_archive_holds_no_pickle(saved: Path, tmp_path: Path) -> None:
    """It is private, and all that stands between a crafted archive and `torch.export.load`."""
    mlflow.pytorch._validate_pt2_archive_is_pickle_free(str(saved / "data" / "model.pt2"))
    model = tmp_path / "m"
    shutil.copytree(saved, model)
    _pickle_among_the_sample_inputs(model, tmp_path / "ran")
    with pytest.raises(MlflowException, match="disallowed"):
        mlflow.pytorch._validate_pt2_archive_is_pickle_free(str(model / "data" / "model.pt2"))


def test_zero_bytes_at_the_end_of_an_image_stay() -> None:
    black = _encoded(np.zeros((32, 32, 3), np.uint8), "TIFF")
    assert black.endswith(b"\0")
    (batch,) = requests.batches_of({"image": [black]})
    assert not batch.any()


def test_a_served_model_unpickles_nothing_either(saved: Path, tmp_path: Path) -> None:
    for attack, reason in ((_pickle_among_the_sample_inputs, "disallowed"), (_code_beside_the_loader, "holds more than")):
        model, mark = tmp_path / attack.__name__, tmp_path / "ran"
        shutil.copytree(saved, model)
        attack(model, mark)
        with pytest.raises(MlflowException, match=reason):
            loader._load_pyfunc(str(model / "data"))
        assert not mark.exists()
