"""Small texts and checkpoints as nobody would write them: each is read or refused in one line, soon and in little memory.

HISTO_FUZZ_EXAMPLES says how many are tried of each kind; their seed is fixed.
"""

import json
import resource
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from hypothesis import given
from hypothesis import strategies as st
from mlflow.exceptions import MlflowException
from safetensors.torch import save_file

from histo_mlflow.evaluation.costs import read_costs
from histo_mlflow.jobs.train import Train
from histo_mlflow.models.checkpoint import FACTS_KEY, load_state, load_weights, save_state
from histo_mlflow.models.facts import ModelFacts
from histo_mlflow.models.weights import read_initial_weights
from histo_mlflow.options import build, flatten, read_yaml
from histo_mlflow.served_model.requests import batches_of
from histo_mlflow.tracking.decisions import Decision, _parse
from histo_mlflow.tracking.journal import _read
from histo_mlflow.tracking.writes import Metrics, to_json
from tests.tiles.test_hostile_files import _changed, _changes, _read_or_refused, _tried

pytestmark = pytest.mark.slow

_MAX_GROWTH_BYTES = 2**30
_scalars = (
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9)
    | st.sampled_from([2**63, 10**400, -1, "", "\x1b[2J", "a\nb", "../../x", "nan"])
)  # fmt: skip
_values = st.recursive(
    _scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3), max_leaves=6
)

_YAML = {name: value for name, value in flatten(build(Train, {})).items() if name != "given"}
_COSTS = {"TUM": {"NORM": 10, "STR": 5}, "NORM": {"TUM": 2}}
_CHECKPOINT = asdict(ModelFacts(("a", "b"), 32, "0" * 64, is_synthetic=True, epoch=3, val_loss=0.25))
_DECISION = asdict(Decision("first", "1", None, "why", user="u", time="t"))
_WRITE = json.loads(to_json(Metrics({"a": 1.0}, 1, 2)))


@pytest.fixture(autouse=True)
def _little_memory() -> Any:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < _MAX_GROWTH_BYTES


def _altered(sound: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    """A sound mapping with values of any kind under some names, others left out, strangers added."""
    changed = st.dictionaries(st.sampled_from(sorted(sound)) | st.text(max_size=5), _values, max_size=3)
    gone = st.sets(st.sampled_from(sorted(sound)), max_size=2)
    return st.builds(lambda new, out: {k: v for k, v in (sound | new).items() if k not in out}, changed, gone)


def _texts(sound: dict[str, Any], write: Callable[[Any], str]) -> st.SearchStrategy[bytes]:
    whole = _altered(sound).map(lambda content: write(content).encode("utf-8", "surrogatepass"))
    return whole | st.builds(_changed, st.just(write(sound).encode()), _changes) | st.builds(_changed, whole, _changes)


def _dump(content: Any) -> str:
    return str(yaml.safe_dump(content, allow_unicode=True))


@_tried
@given(text=_texts(_YAML, _dump))
def test_options(work: Path, text: bytes) -> None:
    (work / "a.yaml").write_bytes(text)
    _read_or_refused(lambda: build(Train, read_yaml(work / "a.yaml", Train)))
    _read_or_refused(lambda: build(Train, read_yaml(work / "a.yaml", Train, is_kept=True)))


@_tried
@given(text=_texts(_COSTS, _dump))
def test_costs(work: Path, text: bytes) -> None:
    (work / "a.yaml").write_bytes(text)
    _read_or_refused(lambda: read_costs(str(work / "a.yaml"), ("NORM", "STR", "TUM")))


@_tried
@given(text=_texts(_DECISION, json.dumps))
def test_decisions(text: bytes) -> None:
    _read_or_refused(lambda: _parse("histo.decision.000001", text.decode(errors="replace")))


@_tried
@given(text=_texts(_WRITE, json.dumps))
def test_journal_entries(work: Path, text: bytes) -> None:
    (work / "000001.json").write_bytes(text)
    _read_or_refused(lambda: _read(work / "000001.json"))


@_tried
@given(header=_texts(_CHECKPOINT, json.dumps), changes=st.just([]) | _changes)
def test_checkpoints(work: Path, header: bytes, changes: list[tuple[float, str, int]]) -> None:
    file = work / "a.safetensors"
    facts = {FACTS_KEY: header.decode(errors="replace")}
    save_file({"backbone.classifier.1.weight": torch.zeros(2, 3)}, file, metadata=facts)
    file.write_bytes(_changed(file.read_bytes(), changes))
    _read_or_refused(lambda: load_weights(file))
    _read_or_refused(lambda: read_initial_weights(str(file), is_synthetic=True))


@_tried
@given(changes=_changes)
def test_states_and_weights_of_torch(work: Path, changes: list[tuple[float, str, int]]) -> None:
    file = work / "a.pth"
    save_state(file, {"random_states": [], "epoch": 3, "network": {"w": torch.zeros(3)}})
    file.write_bytes(_changed(file.read_bytes(), changes))
    _read_or_refused(lambda: load_state(file))
    _read_or_refused(lambda: read_initial_weights(str(file), is_synthetic=True))


@_tried
@given(request=_values | st.dictionaries(st.just("image"), _values) | st.lists(st.binary(max_size=9) | st.text(max_size=9)))
def test_requests_to_a_served_model(request: Any) -> None:
    _read_or_refused(lambda: list(batches_of(request)), MlflowException)
