"""No password and no key stands in what is said, written or logged."""

from pathlib import Path

import pytest

from histo_mlflow.secrets import hide_secrets
from histo_mlflow.tracking.runs import open_run
from histo_mlflow.tracking.store import Store
from tests.conftest import Histo

SECRET = "S3cret-Pw0rd"


@pytest.mark.parametrize(
    ("text", "hidden"),
    [
        (f"http://alice:{SECRET}@host:5000/api", "http://alice:***@host:5000/api"),
        (f"API request to http://alice:{SECRET}@h/x failed", "API request to http://alice:***@h/x failed"),
        (f"postgresql+psycopg://a:{SECRET}/x@h/db", "postgresql+psycopg://a:***@h/db"),
        (f"postgresql://h/db?user=a&password={SECRET}&x=1", "postgresql://h/db?user=a&password=***&x=1"),
        (f"host=h password='{SECRET} x' dbname=d", "host=h password=*** dbname=d"),
        (f"mysql://:{SECRET}@h", "mysql://:***@h"),
        (f"Authorization: Bearer {SECRET}12", "Authorization: Bearer ***"),
        (f"WANDB_API_KEY={SECRET}", "WANDB_API_KEY=***"),
        ("http://127.0.0.1:5000/#/models/x@champion", "http://127.0.0.1:5000/#/models/x@champion"),
        ("models:/histo-b3@candidate at 10:30@noon", "models:/histo-b3@candidate at 10:30@noon"),
    ],
)
def test_passwords_are_hidden_and_nothing_else(text: str, hidden: str) -> None:
    assert hide_secrets(text) == hidden


@pytest.mark.parametrize(
    "name", ["WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN"]
)
def test_values_of_secret_variables_are_hidden_in_every_spelling(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "a/b+c d&e")
    assert hide_secrets("x a/b+c d&e y a%2Fb%2Bc%20d%26e z") == "x *** y *** z"


def test_a_run_keeps_no_secret(store: Store, work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_API_KEY", SECRET)
    with (
        pytest.raises(OSError, match="gone"),
        open_run(store, "one", tags={"histo.command": f"x --storage db://u:{SECRET}@h"}) as run,
    ):
        run.log_params({"storage": f"postgresql://u:{SECRET}@h/d"})
        run.describe(f"key {SECRET}")
        raise OSError(f"gone: {SECRET}")
    assert SECRET not in str(store.client.get_run(run.id).to_dictionary())
    assert SECRET.encode() not in b"".join(file.read_bytes() for file in work.rglob("mlflow.db*"))


def test_a_server_that_is_away_is_named_without_its_password(histo_here: Histo, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri(f"http://alice:{SECRET}@127.0.0.1:9")
    done = histo_here("history", "--debug")
    assert done.returncode == 1
    assert "alice:***@127.0.0.1:9" in done.stderr
    assert SECRET not in done.stdout + done.stderr
