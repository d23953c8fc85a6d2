"""Logged models as nobody would write them: each is loaded or refused in one line, soon and in little memory.

HISTO_FUZZ_EXAMPLES says how many are tried of each kind; their seed is fixed.
"""

import hashlib
import json
import shutil
import zipfile
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from mlflow.models import Model

from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.models.facts import ModelFacts
from histo_mlflow.tracking.model_flavor import load_saved, save_model
from tests.small_network import using_small_network
from tests.test_hostile_texts import _altered, _dump, _little_memory, _texts, _values
from tests.tiles.test_hostile_files import _changed, _changes, _read_or_refused, _tried

pytestmark = pytest.mark.slow
__all__ = ["_little_memory"]  # a fixture of all tests here

FACTS = ModelFacts(tuple("abc"), 16, "f" * 64, is_synthetic=True, tiles_per_class={"training": [1, 2, 3]}, selected="epoch 1")


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model") / "m"
    with using_small_network():
        network = TileClassifier(n_classes=3, tile_size_px=16).eval()
        save_model(str(folder), Model(), network=network, facts=FACTS, card="# A card")
    return folder


@pytest.fixture
def model(sound: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(sound, tmp_path / "m"))


def _again(sound: Path, model: Path) -> None:
    shutil.rmtree(model)
    shutil.copytree(sound, model)


def _sign(model: Path) -> None:
    """Write the hash of the archive as it is now: whoever can write one file can write the other."""
    facts = json.loads((model / "data" / "model.json").read_text())
    facts["weights_sha256"] = hashlib.sha256((model / "data" / "model.pt2").read_bytes()).hexdigest()
    (model / "data" / "model.json").write_text(json.dumps(facts))


def _load(model: Path) -> None:
    _read_or_refused(lambda: load_saved(model))


@_tried
@given(data=st.data())
def test_facts(sound: Path, model: Path, data: st.DataObject) -> None:
    _again(sound, model)
    file = model / "data" / "model.json"
    file.write_bytes(data.draw(_texts(json.loads(file.read_text()), json.dumps)))
    _load(model)


@_tried
@given(data=st.data())
def test_descriptions(sound: Path, model: Path, data: st.DataObject) -> None:
    _again(sound, model)
    file = model / "MLmodel"
    content = yaml.safe_load(file.read_text())
    if data.draw(st.booleans()):
        flavor = data.draw(st.sampled_from(sorted(content["flavors"])))
        content["flavors"][flavor] = data.draw(_altered(content["flavors"][flavor]) | _values)
    file.write_bytes(data.draw(_texts(content, _dump)))
    _load(model)


@_tried
@given(changes=_changes)
def test_damaged_archives(sound: Path, model: Path, changes: list[tuple[float, str, int]]) -> None:
    _again(sound, model)
    file = model / "data" / "model.pt2"
    file.write_bytes(_changed(file.read_bytes(), changes))
    _sign(model)
    _load(model)


@_tried
@given(data=st.data())
def test_damaged_members_in_sound_archives(sound: Path, model: Path, data: st.DataObject) -> None:
    _again(sound, model)
    file = model / "data" / "model.pt2"
    with zipfile.ZipFile(file) as archive:
        members = {info.filename: archive.read(info) for info in archive.infolist()}
    name = data.draw(st.sampled_from(sorted(members)))
    members[name] = _changed_member(members[name], data)
    with zipfile.ZipFile(file, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)
    _sign(model)
    _load(model)


def _changed_member(content: bytes, data: st.DataObject) -> bytes:
    if content.startswith(b"{") and data.draw(st.booleans()):
        parsed: dict[str, Any] = json.loads(content)
        return json.dumps(data.draw(_altered(parsed))).encode("utf-8", "surrogatepass")
    return _changed(content, data.draw(_changes))


def test_the_sound_one_is_loaded(sound: Path) -> None:
    _, facts = load_saved(sound)
    assert facts == FACTS
    table = mlflow.pyfunc.load_model(str(sound)).predict(np.zeros((2, 16, 16, 3), np.uint8))
    assert list(table.columns) == ["label", "prob_a", "prob_b", "prob_c"]
    with pytest.raises(MlflowException):
        mlflow.pyfunc.load_model(str(sound / "data"))
