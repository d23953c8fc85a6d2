"""Hands the best model on: logged with its facts, registered with a description that a person can read."""

from histo_mlflow.console import say
from histo_mlflow.evaluation.gate import GateOptions
from histo_mlflow.evaluation.metrics import Evaluation
from histo_mlflow.evaluation.wording import OVERALL_NAMES, in_words
from histo_mlflow.inputs import LearningInputs
from histo_mlflow.learning.network import with_temperature
from histo_mlflow.promotion import describe_decision, pass_gate
from histo_mlflow.recording import RecordedSplit, facts_of
from histo_mlflow.tiles.open import DataOptions
from histo_mlflow.tracking.decisions import FIRST, Decision, note_decision
from histo_mlflow.tracking.model_flavor import ModelFacts
from histo_mlflow.tracking.registry import MODEL_URI_TAG, Registration, RegistryOptions, log_model, register_model
from histo_mlflow.tracking.runs import Run


def hand_on(
    run: Run,
    recorded: RecordedSplit,
    inputs: LearningInputs,
    data: DataOptions,
    registry: RegistryOptions,
    gate: GateOptions,
    *,
    tags: dict[str, str],
) -> str:
    """Log the network of `recorded` under its run, register it if asked to, and return what became of it, in words.

    `run` is the one that the user started: a cross-validation's parent, or the run of `recorded` itself. If there is a test set
    and another version is in Production, the gate decides between the two.
    """
    tiles = inputs.tiles
    say("exporting the model ...")
    facts = facts_of(recorded, tiles, microns_per_pixel=data.microns_per_pixel)
    own_run = run if run.id == recorded.run_id else Run(run.store, recorded.run_id)
    network = with_temperature(recorded.result.network, recorded.calibration.divisor)
    model_uri = log_model(own_run, network, facts, step=recorded.result.best.best_epoch)
    for each in {run.id: run, own_run.id: own_run}.values():
        each.set_tags({MODEL_URI_TAG: model_uri})
    if not registry.register:
        return describe_registration(None)
    registration = register_model(
        run.store,
        model_uri,
        registry,
        run_id=recorded.run_id,
        description=describe_model(facts, recorded.val, registry.model_name),
        tags={"data_fingerprint": tiles.fingerprint, "source_run": run.id, **tags},
    )
    for each in {run.id: run, own_run.id: own_run}.values():
        each.set_tags({"histo.registered": registration.uri})
    name, version, incumbent = registration.name, registration.version, registration.incumbent
    if incumbent is None:
        note_decision(run.store, name, Decision(FIRST, version, None, "no version was in Production", run=run.id))
        return describe_registration(registration)
    if inputs.test is None:
        return describe_registration(registration)
    say("comparing with the version in Production ...")
    compute = recorded.result.compute.in_fp32()
    decision = pass_gate(run, name, version=version, incumbent=incumbent, tiles=inputs.test, compute=compute, options=gate)
    return f"Registered as {registration.uri}. {describe_decision(name, decision)}"


def describe_registration(registration: Registration | None) -> str:
    """Return what became of the model, in one sentence."""
    if registration is None:
        return "The model was logged with its run and not registered (register=false)."
    if registration.incumbent is None:
        return f"Registered as {registration.uri}, now in Production: models:/{registration.name}/Production."
    return (
        f"Registered as {registration.uri}; Production stays version {registration.incumbent}, for a new version "
        f"replaces it only on evidence. To decide: histo promote --version {registration.version} --model-name "
        f"{registration.name} --test-data SET. To use it meanwhile: models:/{registration.name}@candidate"
    )


def describe_model(facts: ModelFacts, val: Evaluation, model_name: str) -> str:
    """Return the Markdown that MLflow shows for a registered version."""
    synthetic = "**Learnt from synthetic demo tiles, not from tissue: of no use on tissue.**\n\n" if facts.is_synthetic else ""
    figures = "\n".join(f"| {OVERALL_NAMES[name]} | {in_words(figure)} |" for name, figure in val.overall.items())
    return f"""{synthetic}Classifies histology tiles. For research use, **not for diagnosis**.

- **Classes, in this order:** {" ".join(facts.classes)}
- **Input:** uint8 RGB `(n, height, width, 3)`, {facts.microns_per_pixel:g} microns per pixel at {facts.tile_size_px} px;
  other sizes are resized to that, whatever their scale
- **Architecture:** {facts.architecture}, started from {facts.weights_origin}
- **Learnt from:** {facts.data_source} (SHA-256 `{facts.data_fingerprint}`)
- **Selected:** {facts.selected}
- **Calibration:** {_describe_calibration(facts)}

| on the {len(val.predictions.labels)} validation tiles that selected it, so optimistic | value (95 % interval) |
|---|---|
{figures}

```python
import mlflow
model = mlflow.pyfunc.load_model("models:/{model_name}/Production")
table = model.predict(tiles)   # label, prob_{facts.classes[0]} ... prob_{facts.classes[-1]}
```
"""


def _describe_calibration(facts: ModelFacts) -> str:
    if facts.is_calibrated:
        said = f"logits are divided by a temperature of {facts.temperature:.3f}, fitted on the validation tiles"
    else:
        said = "none; the probabilities are the network's own"
    if facts.abstain_below is None:
        return f"{said}. No threshold reaches 99 % accuracy on the validation tiles, so it can't abstain"
    return f'{said}. `predict(tiles, params={{"abstain": True}})` abstains below {facts.abstain_below:.3f}'
