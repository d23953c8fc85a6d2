"""How a network is written as an MLflow model: two flavours over one exported graph, no pickled code, no stored example.

`mlflow.pytorch` writes the graph; the ``python_function`` flavour is our own, because MLflow's returns bare logits and stays on
the device that it was exported on (docs/decisions/0003).
"""

import copy
import json
import shutil
import tempfile
import warnings
from collections.abc import Sequence
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from zipfile import BadZipFile

import mlflow.pyfunc
import mlflow.pytorch
import torch
import yaml
from mlflow.exceptions import MlflowException
from mlflow.models import Model
from mlflow.models.model import MLMODEL_FILE_NAME
from mlflow.models.signature import ModelSignature
from mlflow.types.schema import ColSpec, DataType, ParamSchema, ParamSpec, Schema, TensorSpec

from histo_mlflow.base.digests import sha256_of
from histo_mlflow.base.plain_values import parse_json, read_small
from histo_mlflow.errors import RequestError
from histo_mlflow.models.classifier import TileClassifier
from histo_mlflow.models.facts import ModelFacts, facts_from
from histo_mlflow.models.parts import Head, Joined, split_at_head
from histo_mlflow.models.training_summary import MAX_SUMMARY_BYTES, SUMMARY_FILE, TrainingSummary, summary_from
from histo_mlflow.served_model import loader
from histo_mlflow.tracking.kept_backbones import keep_backbone, load_kept

_CODE_FOLDER, _DATA_FOLDER = "code", "data"
_CARD_FILE = "model_card.md"
_REFERENCE = loader.REFERENCE
_SUMMARY_SHA256 = "training_summary_sha256"
_MAX_FACTS_BYTES = 2**20
_REQUIREMENTS = ("mlflow", "torch", "numpy", "pandas", "pillow")


def save_model(
    path: str,
    mlflow_model: Model,
    *,
    network: torch.nn.Module,
    facts: ModelFacts,
    card: str,
    summary: TrainingSummary | None = None,
) -> None:
    """Write an MLflow model to `path`; has the form that `mlflow.models.Model.log` expects of a flavour.

    Args:
        path: Folder to be made.
        mlflow_model: What MLflow knows of the model; completed here.
        network: From uint8 tiles to logits; copied, and left as it is. Where its backbone may not be passed on, only the head
            is written, and a reference to the backbone.
        facts: Stored as ``data/model.json``.
        card: Markdown, stored as ``model_card.md``.
        summary: Of its training, stored as `SUMMARY_FILE` beside the card: what serves the model does not need it.
    """
    exact = copy.deepcopy(network).eval().cpu().to(memory_format=torch.contiguous_format)
    written, reference = (exact, None) if facts.may_be_passed_on else _without_backbone(exact, facts)
    loader_sha256 = loader.code_sha256(Path(loader.__file__).parent)
    loader_name = _loader_name(loader_sha256)
    _write_graph(written, path, mlflow_model, loader_name, _example_for(written, facts))
    root = Path(path)
    stored = asdict(facts) | {
        "weights_sha256": sha256_of(root / _DATA_FOLDER / loader.WEIGHTS_FILE),
        "loader_sha256": loader_sha256,
        _SUMMARY_SHA256: None if summary is None else _write_summary(summary, root / SUMMARY_FILE),
        _REFERENCE: reference,
    }
    (root / _DATA_FOLDER / loader.FACTS_FILE).write_text(json.dumps(stored, indent=2) + "\n")
    (root / _CARD_FILE).write_text(card)
    mlflow_model.signature = _signature(facts.classes)
    mlflow.pyfunc.add_to_model(
        mlflow_model,
        loader_module=f"{loader_name}.loader",
        data=_DATA_FOLDER,
        code=_CODE_FOLDER,
        conda_env="conda.yaml",
        python_env="python_env.yaml",
        model_config={"device": None},
    )
    mlflow_model.save(str(root / MLMODEL_FILE_NAME))


def _write_graph(written: torch.nn.Module, path: str, mlflow_model: Model, loader_name: str, example: torch.Tensor) -> None:
    """Write the network as a graph, with a copy of the code that serves it, as MLflow lays them out."""
    with tempfile.TemporaryDirectory() as draft, warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, module="torch")
        code = shutil.copytree(
            Path(loader.__file__).parent, Path(draft, loader_name), ignore=shutil.ignore_patterns("__pycache__")
        )
        mlflow.pytorch.save_model(
            written,
            path,
            mlflow_model=mlflow_model,
            code_paths=[str(code)],
            # MLflow wants it in order to export; what is kept is the signature that `save_model` sets.
            signature=ModelSignature(Schema([_spec_of(example)])),
            input_example=example,
            pip_requirements=[f"{name}=={version(name)}" for name in _REQUIREMENTS],
            serialization_format="pt2",
        )


def _write_summary(summary: TrainingSummary, file: Path) -> str:
    """Write the summary and return the SHA-256 of its file."""
    file.write_bytes(summary.to_bytes())
    return sha256_of(file)


def load_saved(model_folder: Path) -> tuple[torch.nn.Module, ModelFacts]:
    """Return the network of a model that `save_model` wrote, on the CPU, and its facts; no code of the model's own is run.

    `mlflow.pytorch.load_model` would put the model's code on the path of imports, and unpickle where a pickle lies in place of
    the graph. Here the files are what `save_model` writes, the weights those that were logged, and the archive holds no pickle
    but of plain tensors.

    Raises:
        RequestError: It is another model, or was changed since.
    """
    try:
        stored = parse_json(read_small(model_folder / _DATA_FOLDER / loader.FACTS_FILE, max_bytes=_MAX_FACTS_BYTES))
        facts = facts_from(stored)
        read_small(model_folder / MLMODEL_FILE_NAME, max_bytes=_MAX_FACTS_BYTES)
        wanted = f"{_loader_name(str(stored.get('loader_sha256')))}.loader"
        if Model.load(str(model_folder)).flavors["python_function"]["loader_module"] != wanted:
            raise ValueError("its loader is another than the one that it was logged with")
    except (OSError, LookupError, TypeError, ValueError, AttributeError, RecursionError, MlflowException, yaml.YAMLError):
        raise RequestError(f"{model_folder} is an MLflow model but not one of histo-mlflow: it has no class names") from None
    weights = model_folder / _DATA_FOLDER / loader.WEIGHTS_FILE
    present = {file.name for file in weights.parent.iterdir() if file.is_file()}  # a pipe would be waited for
    if present != {loader.WEIGHTS_FILE, loader.FACTS_FILE}:
        raise RequestError(
            f"{model_folder} does not hold what histo-mlflow writes (data/: {' '.join(sorted(present))}); {_REFUSED}"
        )
    if sha256_of(weights) != stored.get("weights_sha256"):
        raise RequestError(f"{weights} is not the file that was logged: its SHA-256 differs; {_REFUSED}")
    try:
        mlflow.pytorch._validate_pt2_archive_is_pickle_free(str(weights))
        program = torch.export.load(weights)
        _check_graph(program, facts)
        network = program.module()
        return (network if stored.get(_REFERENCE) is None else Joined(load_kept(stored[_REFERENCE]), network)), facts
    except RequestError:
        raise
    except _DAMAGE as error:
        reason = str(error).partition(". ")[0]
        raise RequestError(f"{weights} can't be loaded ({reason}); {_REFUSED}") from None


def load_summary(model_folder: Path) -> TrainingSummary | None:
    """Return what a model that `load_saved` has taken keeps of its training; None of one that keeps nothing.

    Raises:
        RequestError: It is another than the one that was logged.
    """
    stored = parse_json(read_small(model_folder / _DATA_FOLDER / loader.FACTS_FILE, max_bytes=_MAX_FACTS_BYTES))
    wanted, file = stored.get(_SUMMARY_SHA256), model_folder / SUMMARY_FILE
    if wanted is None:
        return None
    try:
        if not file.is_file() or file.stat().st_size > MAX_SUMMARY_BYTES or sha256_of(file) != wanted:
            raise ValueError("it is not the file that was logged")
        return summary_from(file.read_bytes())
    except (OSError, ValueError) as error:
        raise RequestError(f"{file} can't be used ({error}); fetch the model again from where it was logged") from None


def _without_backbone(network: torch.nn.Module, facts: ModelFacts) -> tuple[torch.nn.Module, dict[str, str]]:
    """Return the head of a network, and the reference to its backbone, which is kept in the user's folder."""
    assert isinstance(network, TileClassifier)
    encoder, head = split_at_head(network)
    return head.eval(), keep_backbone(encoder, facts)


def _example_for(written: torch.nn.Module, facts: ModelFacts) -> torch.Tensor:
    """Return an input of which the exporter takes batch, height and width for symbols: not 0, not 1, none equal."""
    if isinstance(written, Head) or facts.takes_features:
        assert isinstance(written, Head | TileClassifier)
        return torch.zeros((2, written.n_features))
    return torch.zeros((2, facts.tile_size_px + 2, facts.tile_size_px + 5, 3), dtype=torch.uint8)


def _spec_of(example: torch.Tensor) -> TensorSpec:
    return TensorSpec(example.numpy().dtype, (*[-1] * (example.ndim - 1), example.shape[-1]))


def _check_graph(program: torch.export.ExportedProgram, facts: ModelFacts) -> None:
    """Raise `ValueError` unless the graph has a logit for each class and resizes to the tile size, as the facts say."""
    (logits,) = program.graph.output_node().args[0]
    n_logits = logits.meta["val"].shape[1]
    sizes = [list(node.args[1]) for node in program.graph.nodes if "upsample" in str(node.target)]
    if n_logits != len(facts.classes):
        raise ValueError(f"it has {n_logits} outputs and names {len(facts.classes)} classes")
    if any(size != [facts.tile_size_px] * 2 for size in sizes):
        raise ValueError(f"it resizes to {sizes[0]} and not to {facts.tile_size_px} px")


# What MLflow and torch raise for an archive that is not as it should be.
_DAMAGE = (
    MlflowException, RuntimeError, ValueError, LookupError, TypeError, AttributeError, OSError, AssertionError, BadZipFile,
)  # fmt: skip
_REFUSED = "nothing of it was loaded: fetch it again from where it was logged"


def _signature(classes: Sequence[str]) -> ModelSignature:
    """Outputs and parameters only: the loader checks its inputs itself, and takes two kinds (docs/decisions/0006)."""
    outputs: list[ColSpec | TensorSpec] = [ColSpec(DataType.string, "label")]
    outputs += [ColSpec(DataType.double, f"prob_{name}") for name in classes]
    return ModelSignature(outputs=Schema(outputs), params=ParamSchema([ParamSpec("abstain", DataType.boolean, False)]))


def _loader_name(sha256: str) -> str:
    """Return a package name that changes with the loader's code, so that two models in one process never share code."""
    return f"histo_served_model_{sha256[:12]}"
