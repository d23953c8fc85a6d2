"""Hands the best model on: logged with its facts, registered with a description that a person can read."""

from collections.abc import Sequence
from dataclasses import dataclass

from histo_mlflow.console import say
from histo_mlflow.evaluation.gate import object_to
from histo_mlflow.models.classifier import with_temperature
from histo_mlflow.pipeline.card import OutOfFold, write_card
from histo_mlflow.pipeline.compare import Candidacy, describe_decision, pass_gate
from histo_mlflow.pipeline.contents import not_at_the_cost_of_the_model
from histo_mlflow.pipeline.record import RecordedSplit, read_best_network
from histo_mlflow.pipeline.session import Session
from histo_mlflow.pipeline.summary import summarise_training
from histo_mlflow.served_model.kept_backbone import backbones_folder
from histo_mlflow.tracking.decisions import REFUSED, Decision, Registration, register_model
from histo_mlflow.tracking.logged_models import log_model, show_model
from histo_mlflow.tracking.pages import version_page
from histo_mlflow.tracking.registry import LEARNT_IN_TAG, MODEL_URI_TAG, REGISTERED_TAG, SOURCE_RUN_TAG, VersionFacts


@dataclass(frozen=True)
class HandedOn:
    """What became of a model.

    Attributes:
        model_uri: Address of the logged model.
        registration: Its version, or None if it was not to be registered.
        decision: Of the gate, or None if it was not asked.
    """

    model_uri: str
    registration: Registration | None = None
    decision: Decision | None = None

    @property
    def version(self) -> str | None:
        """Number of the registered version, or None."""
        return None if self.registration is None else self.registration.version

    @property
    def links(self) -> dict[str, str]:
        """The page of the version, by its words; nothing if it was not registered."""
        if self.registration is None:
            return {}
        name, version = self.registration.name, self.registration.version
        return {f"Model {name} version {version}": version_page(name, version)}

    def describe(self) -> str:
        """Return what became of the model, in a few sentences."""
        registration = self.registration
        if registration is None:
            return "The model was logged with its run and not registered (register=false)."
        uri, name, version, incumbent = registration.uri, registration.name, registration.version, registration.incumbent
        if self.decision is not None:
            return f"Registered as {uri}. {describe_decision(name, self.decision)}"
        if registration.trouble:
            return f"Registered as {uri}; Production stays as it is. {registration.trouble}"
        promote = f"histo promote --version {version} --model-name {name}"
        meanwhile = f"models:/{name}@candidate"
        if registration.decision is not None and registration.decision.what == REFUSED:
            return (
                f"Registered as {uri}, a candidate: {registration.decision.reason}. Nothing is in Production. To use it "
                f"meanwhile: {meanwhile}. To put it there all the same: {promote} --force --reason TEXT"
            )
        if incumbent is None:
            return f"Registered as {uri}, now in Production: models:/{name}/Production."
        return (
            f"Registered as {uri}; Production stays version {incumbent}: a new version replaces it only on evidence. "
            f"To decide: {promote} --test-data SET. To use it meanwhile: {meanwhile}"
        )


def hand_on(
    session: Session,
    recorded: RecordedSplit,
    out_of_fold: OutOfFold | None = None,
    folds: Sequence[RecordedSplit] = (),
    **tags: str,
) -> HandedOn:
    """Log the network of `recorded` under its run, register it if asked to, and return what became of it.

    The session's run is the one that the user started: a cross-validation's parent, or the run of `recorded` itself. If there
    is a test set and another version is in Production, the gate decides between the two. The card names what a
    cross-validation knows `out_of_fold`, and the summary of its training what all `folds` hold out. `tags` are those of the
    version.
    """
    run, inputs, options = session.run, session.inputs, session.options
    name = options.registry.model_name
    run.settle()
    say("exporting the model ...")
    facts = recorded.facts
    if not facts.may_be_passed_on:
        say(f"the licence of {facts.backbone} ({facts.licence}) keeps it here: {backbones_folder()}; the model refers to it")
    own_run = run if run.id == recorded.run.id else recorded.run
    network = with_temperature(read_best_network(own_run), facts.divisor)
    card = write_card(facts, recorded.findings, model_name=name, out_of_fold=out_of_fold)
    summary = None
    with not_at_the_cost_of_the_model(run, "the summary of the training", then="Drift can't be judged by this version."):
        summary = summarise_training(session, recorded, folds)
    model_uri = log_model(own_run, network, facts, card, step=recorded.best.best_epoch, summary=summary)
    both = {run.id: run, own_run.id: own_run}.values()
    for each in both:
        each.set_tags({MODEL_URI_TAG: model_uri})
    if own_run.id != run.id:
        show_model(run, model_uri, step=recorded.best.best_epoch)
    if not options.registry.register:
        return HandedOn(model_uri)
    say(f"registering it as {name} ...")
    about = {"data_fingerprint": facts.data_fingerprint, SOURCE_RUN_TAG: run.id, LEARNT_IN_TAG: own_run.id, **tags}
    registration = register_model(
        run.store,
        model_uri,
        name,
        VersionFacts(run.id, card, about),
        objection=object_to(recorded.findings["val"]),
    )
    for each in both:
        each.set_tags({REGISTERED_TAG: registration.uri})
    if registration.incumbent is None or registration.trouble or inputs.test is None:
        return HandedOn(model_uri, registration)
    say("comparing with the version in Production ...")
    candidacy = Candidacy(name, registration.version, registration.incumbent)
    decision = pass_gate(run, candidacy, inputs.test, recorded.best.compute.in_fp32(), options.gate)
    return HandedOn(model_uri, registration, decision)
