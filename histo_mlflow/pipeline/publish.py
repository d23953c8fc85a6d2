"""Hands the best model on: logged with its facts, registered with a description that a person can read."""

from histo_mlflow.console import say
from histo_mlflow.evaluation.gate import GateOptions, object_to
from histo_mlflow.models.classifier import with_temperature
from histo_mlflow.pipeline.card import write_card
from histo_mlflow.pipeline.gateway import describe_decision, pass_gate
from histo_mlflow.pipeline.inputs import LearningInputs
from histo_mlflow.pipeline.record import RecordedSplit, facts_of
from histo_mlflow.tiles.open import DataOptions
from histo_mlflow.tracking.decisions import REFUSED, Registration, register_model
from histo_mlflow.tracking.logged_models import log_model
from histo_mlflow.tracking.registry import MODEL_URI_TAG, RegistryOptions
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
    run.settle()
    say("exporting the model ...")
    facts = facts_of(recorded, tiles, microns_per_pixel=data.microns_per_pixel)
    own_run = run if run.id == recorded.run_id else Run(run.store, recorded.run_id)
    network = with_temperature(recorded.result.network, recorded.calibration.divisor)
    test = None if inputs.test is None or recorded.test is None else (inputs.test.source, recorded.test)
    card = write_card(facts, recorded.val, test, model_name=registry.model_name)
    model_uri = log_model(own_run, network, facts, card, step=recorded.result.best.best_epoch)
    for each in {run.id: run, own_run.id: own_run}.values():
        each.set_tags({MODEL_URI_TAG: model_uri})
    if not registry.register:
        return describe_registration(None)
    name = registry.model_name
    registration = register_model(
        run.store,
        model_uri,
        name,
        run_id=recorded.run_id,
        description=card,
        tags={"data_fingerprint": tiles.fingerprint, "source_run": run.id, **tags},
        objection=object_to(recorded.val, recorded.baselines),
    )
    for each in {run.id: run, own_run.id: own_run}.values():
        each.set_tags({"histo.registered": registration.uri})
    version, incumbent = registration.version, registration.incumbent
    if incumbent is None or registration.trouble or inputs.test is None:
        return describe_registration(registration)
    say("comparing with the version in Production ...")
    compute = recorded.result.compute.in_fp32()
    decision = pass_gate(run, name, version=version, incumbent=incumbent, tiles=inputs.test, compute=compute, options=gate)
    return f"Registered as {registration.uri}. {describe_decision(name, decision)}"


def describe_registration(registration: Registration | None) -> str:
    """Return what became of the model, in one sentence."""
    if registration is None:
        return "The model was logged with its run and not registered (register=false)."
    if registration.trouble:
        return f"Registered as {registration.uri}; Production stays as it is. {registration.trouble}"
    if registration.decision is not None and registration.decision.what == REFUSED:
        return (
            f"Registered as {registration.uri}, a candidate: {registration.decision.reason}. Nothing is in Production. To use "
            f"it meanwhile: models:/{registration.name}@candidate. To put it there all the same: histo promote --version "
            f"{registration.version} --model-name {registration.name} --force --reason TEXT"
        )
    if registration.incumbent is None:
        return f"Registered as {registration.uri}, now in Production: models:/{registration.name}/Production."
    return (
        f"Registered as {registration.uri}; Production stays version {registration.incumbent}, for a new version "
        f"replaces it only on evidence. To decide: histo promote --version {registration.version} --model-name "
        f"{registration.name} --test-data SET. To use it meanwhile: models:/{registration.name}@candidate"
    )
