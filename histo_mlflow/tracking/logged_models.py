"""A network becomes a logged model of its run: once, however often the run is killed and goes on."""

import hashlib
import json
from contextlib import suppress
from dataclasses import asdict

import torch
from mlflow.entities import LoggedModelOutput, LoggedModelStatus
from mlflow.models import Model

from histo_mlflow.base.interruption import shielded
from histo_mlflow.errors import Interrupted
from histo_mlflow.models.facts import ModelFacts
from histo_mlflow.models.training_summary import TrainingSummary
from histo_mlflow.tracking import model_flavor
from histo_mlflow.tracking.kept import end_models_of
from histo_mlflow.tracking.reach import ANSWER_SECONDS, trying_once
from histo_mlflow.tracking.runs import Run
from histo_mlflow.tracking.store_errors import reporting_store_errors

MODEL_KIND = "tile classifier"
_FACTS_TAG = "histo.facts_sha256"


def show_model(run: Run, model_uri: str, *, step: int) -> None:
    """Let the page of `run` show a model that was logged by a run nested in it too."""
    run.store.client.log_outputs(run.id, [LoggedModelOutput(model_uri.removeprefix("models:/"), step)])


def log_model(
    run: Run, network: torch.nn.Module, facts: ModelFacts, card: str, *, step: int, summary: TrainingSummary | None = None
) -> str:
    """Log the network, its card and the summary of its training under `run`, and return its URI ``models:/m-...``.

    The metrics that it has are those of epoch `step`.

    A run that was killed after this, and goes on, has its model already.
    """
    client = run.store.client
    kept = client.get_run(run.id)
    tags = {_FACTS_TAG: hashlib.sha256(json.dumps(asdict(facts), sort_keys=True).encode()).hexdigest()}
    earlier = client.search_logged_models([kept.info.experiment_id], filter_string=f"source_run_id = '{run.id}'")
    if same := [each for each in earlier if each.status == LoggedModelStatus.READY and tags.items() <= each.tags.items()]:
        return str(same[0].model_uri)
    end_models_of(client, kept)  # of an attempt that was cut short
    # Begun here, for left alone `Model.log` begins it in the experiment of MLflow's global state, which need not exist.
    begun = client.create_logged_model(kept.info.experiment_id, "model", run.id, tags, kept.data.params, model_type=MODEL_KIND)
    try:
        with reporting_store_errors(run.store.uri):
            Model.log(
                None,
                flavor=model_flavor,
                model_id=begun.model_id,
                run_id=run.id,
                step=step,
                network=network,
                facts=facts,
                card=card,
                summary=summary,
            )
    except Interrupted:  # after other errors MLflow itself does not leave the model PENDING
        with shielded(), suppress(Exception), trying_once(ANSWER_SECONDS):
            end_models_of(client, kept)
        raise
    return str(begun.model_uri)
