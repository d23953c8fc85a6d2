"""The model card: what a reader must know before using a version, in Markdown.

Its sections follow Mitchell et al. 2019, "Model Cards for Model Reporting".
"""

import platform
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version

import histo_mlflow
from histo_mlflow.base.escaping import markdown, visible
from histo_mlflow.evaluation.caveats import caveats_of
from histo_mlflow.evaluation.findings import Findings
from histo_mlflow.evaluation.metrics import OVERALL_METRICS, Evaluation
from histo_mlflow.evaluation.verdict import verdict_of
from histo_mlflow.evaluation.wording import in_words
from histo_mlflow.models.facts import ModelFacts
from histo_mlflow.models.options import n_features_of

_HEADLINES = ("balanced_accuracy", "accuracy", "macro_f1", "macro_auroc", "log_loss", "ece_top_label")
_SELECTED = "The validation tiles selected the epoch, so their figures are optimistic."
_PACKAGES = ("mlflow", "torch", "torchvision", "numpy")


@dataclass(frozen=True, eq=False)
class OutOfFold:
    """What a cross-validation knows beside the fold that it hands on.

    Attributes:
        findings: On all tiles, each scored by the fold that has not learnt from it.
        nested: Mean over the folds of figures by name, each fold at the epoch that the other folds choose.
    """

    findings: Findings
    nested: Mapping[str, float]

    def describe(self) -> str:
        """Return how the figures of the fold and of all tiles are to be read."""
        nested = ", ".join(f"{name.replace('_', ' ')} {value:.4f}" for name, value in self.nested.items())
        return (
            "The validation tiles selected the epoch and the fold, so their figures are optimistic. Those of all tiles, each "
            "scored by the fold that has not learnt from it, are free of the choice of the fold. Free of the choice of the "
            f"epoch too, each fold's being chosen by the other folds, are on average: {nested}."
        )


def write_card(
    facts: ModelFacts, findings: Mapping[str, Findings], *, model_name: str, out_of_fold: OutOfFold | None = None
) -> str:
    """Return the card that MLflow shows for a version and that lies in the model as ``model_card.md``.

    Args:
        facts: What travels with the model.
        findings: On the validation tiles that selected it, and on the test set that was watched, if there was one, by name.
        model_name: Under which it is registered.
        out_of_fold: Of a cross-validation.
    """
    synthetic = "**Learnt from synthetic demo tiles, not from tissue: of no use on tissue.**\n\n" if facts.is_synthetic else ""
    val = findings["val"].evaluation
    test = (findings["test"].about.source, findings["test"].evaluation) if "test" in findings else None
    judged = findings.get("test", findings["val"] if out_of_fold is None else out_of_fold.findings)
    return f"""{synthetic}{_describe_verdict(judged)}

Classifies histology tiles. For research use, **not for diagnosis**.

## Intended use

One label and one probability per class for each tile of tissue that was stained, scanned and cut as the tiles below were.
Every tile gets one of these classes, also one that shows none of them. Not validated for clinical use; not for diagnosis,
staging or the choice of a treatment.

- **Classes, in this order:** {" ".join(markdown(name) for name in facts.classes)}
- **Input:** {_describe_input(facts)}
- **Architecture:** {markdown(facts.backbone)}, started from {_describe_origin(facts)}

## Data and selection

- **Learnt from:** {markdown(facts.data_source)} (SHA-256 `{facts.data_fingerprint}`)
- **Organ, stain and scanner:** not stated
- **Kept together when it was split:** {facts.split_unit}
- **Selected:** {markdown(facts.selected)}

## Figures

{_overall_table(val, test, out_of_fold)}

{_class_table(facts, val, test)}

Values in brackets are 95 % intervals. {_SELECTED if out_of_fold is None else out_of_fold.describe()} The
intervals know of chance among these tiles, not of other laboratories, scanners or patients.

## Calibration

{_describe_calibration(facts)}.

## Limits

- Other stains, scanners, scales, organs and artefacts than those of the data above: not known, expect worse.
- Sex, age and origin of the patients: not known to the software, so nothing is said of how it does for whom.
- A probability is the network's confidence in a tile, not the probability of a disease.

## Use

{_describe_use(facts, model_name)}
"""


def _describe_verdict(findings: Findings) -> str:
    caveats = "\n".join(f"- {markdown(caveat.words)}" for caveat in caveats_of(findings))
    return f"**{markdown(verdict_of(findings).describe())}**" + (f"\n\n{caveats}" if caveats else "")


def _describe_input(facts: ModelFacts) -> str:
    if facts.takes_features:
        return f"features `(n, {n_features_of(facts.backbone)})` by {markdown(facts.encoder)}, and of nothing else"
    is_known = facts.microns_per_pixel is not None
    scale = f"{facts.microns_per_pixel:g} microns per pixel at" if is_known else "scale not stated; brought to"
    return (
        f"uint8 RGB `(n, height, width, 3)`, or PNG, JPEG or TIFF files; {scale}\n"
        f"  {facts.tile_size_px} px; other sizes are resized to that, whatever their scale"
    )


def _describe_use(facts: ModelFacts, model_name: str) -> str:
    # This package itself has no metadata in an environment that MLflow has built: it is not installed there.
    packages = (f"{name} {version(name)}" for name in _PACKAGES)
    versions = [f"histo-mlflow {histo_mlflow.__version__}", f"Python {platform.python_version()}", *packages]
    return f"""```python
import mlflow
model = mlflow.pyfunc.load_model("models:/{model_name}/Production")
table = model.predict(tiles)   # label, prob_{visible(facts.classes[0])} ... prob_{visible(facts.classes[-1])}
```

Made with {", ".join(versions)}."""


def _overall_table(val: Evaluation, test: tuple[str, Evaluation] | None, out_of_fold: OutOfFold | None) -> str:
    columns = {f"{len(val.predictions.labels)} validation tiles": val}
    if out_of_fold is not None:
        columns[f"all {len(out_of_fold.findings.predictions.labels)} tiles, out of fold"] = out_of_fold.findings.evaluation
    if test is not None:
        columns[f"{len(test[1].predictions.labels)} test tiles: {test[0]}"] = test[1]
    rows = [
        [OVERALL_METRICS[name].words, *(in_words(evaluation.overall[name]) for evaluation in columns.values())]
        for name in _HEADLINES
        if name in val.overall
    ]
    return _table(["", *columns], rows)


def _class_table(facts: ModelFacts, val: Evaluation, test: tuple[str, Evaluation] | None) -> str:
    parts, scored = facts.tiles_per_class, {"validation": val} | ({} if test is None else {"test": test[1]})
    header = ["class", *(f"{part} tiles" for part in parts), *(f"sensitivity ({name})" for name in scored)]
    rows = []
    for k, name in enumerate(facts.classes):
        sensitivities = [in_words(evaluation.per_class[k].estimates["sensitivity"]) for evaluation in scored.values()]
        rows.append([name, *(str(counts[k]) for counts in parts.values()), *sensitivities])
    return _table(header, rows)


def _table(header: list[str], rows: list[list[str]]) -> str:
    return "\n".join(f"| {' | '.join(map(markdown, cells))} |" for cells in [header, ["---"] * len(header), *rows])


def _describe_origin(facts: ModelFacts) -> str:
    words = markdown(facts.weights_origin)
    if facts.weights_origin_sha256:
        words += f" (SHA-256 `{facts.weights_origin_sha256}`)"
    if facts.licence:
        words += f"; licence of these weights: {markdown(facts.licence)}"
    if not facts.may_be_passed_on:
        words += (
            ". **The backbone is not in this model**, for its licence does not let it be passed on: it is looked for where its "
            "user keeps it (`HISTO_BACKBONES_DIR`)"
        )
    return words


def _describe_calibration(facts: ModelFacts) -> str:
    if facts.is_calibrated and facts.temperature != 1:
        said = f"Logits are divided by a temperature of {facts.temperature:.3f}, fitted on the validation tiles"
    elif facts.is_calibrated:
        said = "None: no temperature lowered the loss of validation tiles that it was not fitted on"
    else:
        said = "None; the probabilities are the network's own"
    if facts.abstain_below is None:
        return f"{said}. The validation tiles don't show 99 % accuracy above any threshold, so it can't abstain"
    return f'{said}. `predict(tiles, params={{"abstain": True}})` abstains below {facts.abstain_below:.3f}'
