"""The numbers of a scored split or of a comparison as files, from which pages can be drawn at any time; draws nothing."""

import json
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from histo_mlflow.base.plain_values import parse_json
from histo_mlflow.errors import TileFormatError
from histo_mlflow.evaluation import caveats, verdict
from histo_mlflow.evaluation.calibration import Calibration
from histo_mlflow.evaluation.findings import BASELINE_METRICS, About, Details, Findings
from histo_mlflow.evaluation.metrics import OVERALL_METRICS, ClassEvaluation, Evaluation
from histo_mlflow.evaluation.paired import Comparison
from histo_mlflow.evaluation.perturbed import Perturbed
from histo_mlflow.evaluation.predictions import Predictions
from histo_mlflow.evaluation.tables import baseline_table, class_table, disagreement_table, error_table, robustness_table
from histo_mlflow.evaluation.verdict import Verdict
from histo_mlflow.evaluation.wording import as_json, from_json

_OF_TILES = ("source", "fingerprint", "looks", "is_synthetic", "tile_size_px", "date")
# Fields of `About`, and what they are called in the summary.
_ABOUT = {name: name for name in ("selected", "split", *_OF_TILES)} | {"fingerprint": "data_fingerprint"}
_DAMAGE = (OSError, KeyError, TypeError, ValueError, AttributeError, EOFError, zipfile.BadZipFile)
_VERDICTS = ("verdict", "verdict_a", "verdict_b")
Arrays = Mapping[str, NDArray[Any]]


def write_numbers(folder: Path, findings: Findings) -> None:
    """Write ``summary.json``, ``predictions.npz`` and the tables."""
    folder.mkdir(parents=True, exist_ok=True)
    evaluation, details = findings.evaluation, findings.details
    np.savez_compressed(folder / "predictions.npz", **_as_arrays(findings))
    (folder / "summary.json").write_text(json.dumps(_as_summary(findings), indent=2, allow_nan=False) + "\n")
    class_table(evaluation.per_class).to_csv(folder / "per_class.csv", index=False)
    classes = list(findings.predictions.classes)
    confusion = pd.DataFrame(findings.predictions.confusion, index=pd.Index(classes, name="true"), columns=classes)
    confusion.to_csv(folder / "confusion_matrix.csv")
    error_table(findings).to_csv(folder / "errors.csv", index=False)
    if details.robustness:
        robustness_table(details.robustness).to_csv(folder / "robustness.csv", index=False)
    if details.baselines:
        baseline_table(findings).to_csv(folder / "baselines.csv", index=False)


def read_numbers(folder: Path) -> Findings:
    """Return the findings that `write_numbers` has written to `folder`, figure for figure.

    Raises:
        TileFormatError: A file is missing, damaged, or of a version that has kept less.
    """
    with _reading_kept(folder, "summary.json", "histo evaluate"):
        summary = parse_json((folder / "summary.json").read_text())
        with np.load(folder / "predictions.npz") as arrays:
            return _from_kept(summary, arrays)


def write_comparison(
    folder: Path,
    comparison: Comparison,
    about: About,
    verdicts: Sequence[Verdict] = (),
    names: NDArray[np.str_] | None = None,
) -> None:
    """Write ``comparison.json``, ``predictions.npz`` and ``disagreements.csv``, from which the page is drawn.

    `verdicts` are on the difference, on A and on B, or none; `names` ``(n_tiles,)`` are files of the tiles.
    """
    a, b = comparison.a, comparison.b
    arrays: dict[str, Any] = {"labels": a.labels, "probabilities_a": a.probabilities, "probabilities_b": b.probabilities}
    if names is not None:
        arrays["names"] = names
    if a.groups is not None:
        arrays["groups"] = a.groups
    np.savez_compressed(folder / "predictions.npz", **arrays)
    said = {name: verdict.as_json(each) for name, each in zip(_VERDICTS, verdicts, strict=False)}
    (folder / "comparison.json").write_text(json.dumps(said | _as_content(comparison, about), indent=2) + "\n")
    disagreement_table(comparison, names).to_csv(folder / "disagreements.csv", index=False)


def read_comparison(folder: Path) -> tuple[Comparison, About, tuple[Verdict, ...]]:
    """Return what `write_comparison` has written to `folder`; an earlier version has kept no verdicts.

    Raises:
        TileFormatError: A file is missing, damaged, or of a version that has kept less.
    """
    with _reading_kept(folder, "comparison.json", "histo compare"):
        content = parse_json((folder / "comparison.json").read_text())
        with np.load(folder / "predictions.npz") as arrays:
            comparison = _comparison_in(content, arrays)
        about = About(models=(content["a"], content["b"]), **{name: content[name] for name in _OF_TILES if name in content})
        verdicts = tuple(verdict.from_json(content[name]) for name in _VERDICTS if name in content)
    return comparison, about, verdicts


@contextmanager
def _reading_kept(folder: Path, file: str, again: str) -> Iterator[None]:
    """Turn whatever is wrong with `file` and ``predictions.npz`` into one line that names the command to score `again` with."""
    try:
        yield
    except _DAMAGE as error:
        raise TileFormatError(
            f"{folder.name}: {file} and predictions.npz don't hold what a report is drawn from ({type(error).__name__}: "
            f"{' '.join(str(error).split())[:200]}); score the model again with {again}"
        ) from None


def _as_arrays(findings: Findings) -> dict[str, Any]:
    predictions, tried = findings.predictions, findings.details.robustness
    arrays: dict[str, Any] = {
        "labels": predictions.labels,
        "predicted": predictions.predicted,
        "probabilities": predictions.probabilities,
        "indices": findings.indices,
        "names": findings.names,
    }
    if predictions.groups is not None:
        arrays["groups"] = predictions.groups
    if tried:  # the tiles are the same for every change
        arrays |= {"robustness_labels": tried[0].labels, "robustness_before": tried[0].before}
        arrays["robustness_after"] = np.stack([each.after for each in tried])
    return arrays


def _as_summary(findings: Findings) -> dict[str, object]:
    evaluation, about, details = findings.evaluation, findings.about, findings.details
    return {
        "verdict": verdict.as_json(verdict.verdict_of(findings)),
        "caveats": caveats.as_json(caveats.caveats_of(findings)),
        "noted_caveats": caveats.as_json(details.caveats),
        **{name: as_json(figure) for name, figure in evaluation.overall.items()},
        "n": len(findings.indices),
        **{key: getattr(about, name) for name, key in _ABOUT.items()},
        "model": " and ".join(about.models),
        "intervals": evaluation.intervals,
        "classes": list(findings.predictions.classes),
        "per_class": [
            {"class": each.name, "n": each.n, "figures": {name: as_json(kept) for name, kept in each.estimates.items()}}
            for each in evaluation.per_class
        ],
        "calibration": {
            "temperature": details.calibration.temperature,
            "is_applied": details.calibration.is_applied,
            **findings.before_and_after,
        },
        "abstention": findings.abstention,
        "robustness": [
            {"change": each.kind, "strength": each.strength, **as_json(each.changed), "accuracy": each.accuracy}
            for each in details.robustness
        ],
        "baselines": {
            name: as_json(figures["balanced_accuracy"]) | {key: as_json(figure) for key, figure in figures.items()}
            for name, figures in details.baselines.items()
        },
        "flow": {part: counts.tolist() for part, counts in details.flow.items()},
        "split_unit": details.split_unit,
        "costs": findings.costs.tolist(),
        "folds": [] if details.folds is None else details.folds.to_dict("records"),
    }  # fmt: skip


def _from_kept(summary: Mapping[str, Any], arrays: Arrays) -> Findings:
    classes = tuple(summary["classes"])
    groups = arrays.get("groups")
    predictions = Predictions(arrays["labels"], arrays["probabilities"], classes, groups)
    per_class = tuple(
        ClassEvaluation(row["class"], row["n"], {name: from_json(kept) for name, kept in row["figures"].items()})
        for row in summary["per_class"]
    )
    overall = {name: from_json(summary[name]) for name in OVERALL_METRICS if name in summary}  # of a version with fewer too
    about = About(models=(summary["model"],), **{name: summary[key] for name, key in _ABOUT.items() if key in summary})
    evaluation = Evaluation(predictions, overall, per_class, summary["intervals"])
    indices, names = arrays["indices"], arrays.get("names")
    is_numbered = names is None or np.array_equal(names, indices.astype(np.str_))
    return Findings(evaluation, indices, about, _read_details(summary, arrays), None if is_numbered else names)


def _read_details(summary: Mapping[str, Any], arrays: Arrays) -> Details:
    return Details(
        flow={part: np.array(counts) for part, counts in summary["flow"].items()},
        split_unit=summary["split_unit"],
        calibration=Calibration(
            summary["calibration"]["temperature"],
            summary["calibration"]["is_applied"],
            summary["abstention"]["threshold"],
        ),
        costs=np.array(summary["costs"]),
        robustness=[
            Perturbed(each["change"], each["strength"], arrays["robustness_labels"], arrays["robustness_before"], after)
            for each, after in zip(summary["robustness"], arrays.get("robustness_after", ()), strict=True)
        ],
        baselines={
            name: {figure: from_json(kept[figure]) for figure in BASELINE_METRICS}
            for name, kept in summary["baselines"].items()
        },
        folds=pd.DataFrame(summary["folds"]) if summary["folds"] else None,
        caveats=caveats.from_json(summary.get("noted_caveats", [])),
    )


def _as_content(comparison: Comparison, about: About) -> dict[str, object]:
    classes = comparison.a.classes
    return {
        "a": about.models[0],
        "b": about.models[1],
        **{name: getattr(about, name) for name in _OF_TILES},
        "n": len(comparison.a.labels),
        "values": {name: {"a": pair[0], "b": pair[1]} for name, pair in comparison.values.items()},
        "differences": {name: as_json(figure) for name, figure in comparison.differences.items()},
        "sensitivity": {name: as_json(figure) for name, figure in zip(classes, comparison.sensitivity, strict=True)},
        "only_a_right": comparison.only_a,
        "only_b_right": comparison.only_b,
        "p_value": comparison.p_value,
        "test": comparison.test,
        "n_disagreements": len(comparison.disagree),
        "intervals": comparison.intervals,
    }


def _comparison_in(content: Mapping[str, Any], arrays: Arrays) -> Comparison:
    classes = tuple(content["sensitivity"])
    a, b = (
        Predictions(arrays["labels"], arrays[f"probabilities_{side}"], classes, arrays.get("groups")) for side in ("a", "b")
    )
    return Comparison(
        a, b, {name: (pair["a"], pair["b"]) for name, pair in content["values"].items()},
        {name: from_json(kept) for name, kept in content["differences"].items()},
        tuple(from_json(kept) for kept in content["sensitivity"].values()),
        content["only_a_right"], content["only_b_right"], content["p_value"], content["test"], content["intervals"],
    )  # fmt: skip
