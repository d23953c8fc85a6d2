"""No password and no key stands in what is said, written or logged."""

from pathlib import Path

import pytest
import yaml

from histo_mlflow.base.secrets import hide_secrets
from histo_mlflow.cli import run_command
from histo_mlflow.pipeline.contents import log_config
from histo_mlflow.tracking.runs import open_run
from histo_mlflow.tracking.store import Store
from tests.conftest import Histo
from tests.servers import tracking_server
from tuning.search import make_command

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
        (f"https://{SECRET}-of-20-letters@git.org/x.git", "https://***@git.org/x.git"),
        (f"https://s3/b/x?X-Amz-Signature={SECRET}&X=1", "https://s3/b/x?X-Amz-Signature=***&X=1"),
        (f"https://azure/x?sv=1&sig={SECRET}", "https://azure/x?sv=1&sig=***"),
        (f"AccountName=a;AccountKey={SECRET};x=1", "AccountName=a;AccountKey=***;x=1"),
        (f"{{'user': 'a', 'password': '{SECRET} x'}}", "{'user': 'a', 'password': '***'}"),
        (f'{{"token": "{SECRET}", "n": 1}}', '{"token": "***", "n": 1}'),
        ("design=5 tokens: 3 the signature of sigma=2", "design=5 tokens: 3 the signature of sigma=2"),
        ("http://127.0.0.1:5000/#/models/x@champion", "http://127.0.0.1:5000/#/models/x@champion"),
        ("models:/histo-b3@candidate at 10:30@noon", "models:/histo-b3@candidate at 10:30@noon"),
    ],
)
def test_passwords_are_hidden_and_nothing_else(text: str, hidden: str) -> None:
    assert hide_secrets(text) == hidden


@pytest.mark.parametrize(
    "name",
    ["WANDB_API_KEY", "MLFLOW_TRACKING_PASSWORD", "MLFLOW_TRACKING_TOKEN", "AWS_SECRET_ACCESS_KEY", "HF_TOKEN", "PGPASSWORD"],
)
def test_values_of_secret_variables_are_hidden_in_every_spelling(monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    monkeypatch.setenv(name, "a/b+c d&e")
    assert hide_secrets("x a/b+c d&e y a%2Fb%2Bc%20d%26e z") == "x *** y *** z"


def test_files_and_folders_are_no_secrets(work: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GOOGLE_APPLICATION_CREDENTIALS", str(work))
    monkeypatch.setenv("PWD", "/somewhere/else")
    assert hide_secrets(f"{work} /somewhere/else") == f"{work} /somewhere/else"


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


def test_a_kept_configuration_with_a_hidden_value_is_still_yaml(
    store: Store, work: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", SECRET)
    with open_run(store, "one") as run:
        log_config(run, {"data": SECRET, "epochs": 3})
    assert yaml.safe_load(run.fetch_file("config.yaml", work).read_text()) == {"data": "***", "epochs": 3}


def test_a_server_that_is_away_is_named_without_its_password(histo_here: Histo, monkeypatch: pytest.MonkeyPatch) -> None:
    import mlflow

    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    mlflow.set_tracking_uri(f"http://alice:{SECRET}@127.0.0.1:9")
    done = histo_here("history", "--debug")
    assert done.returncode == 1
    assert "alice:***@127.0.0.1:9" in done.stderr
    assert SECRET not in done.stdout + done.stderr


@pytest.mark.slow
@pytest.mark.timeout(900)
def test_no_command_leaves_a_secret_anywhere(
    work: Path, tiny_npz: Path, histo_here: Histo, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """Every command with a password in each address, key and reason; store, files and terminal are searched for them."""
    import mlflow

    tuning = f"postgresql+psycopg://alice:{SECRET}-1@127.0.0.1:9/none"
    monkeypatch.setenv("WANDB_API_KEY", f"{SECRET}-2")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("MLFLOW_SERVER_ENABLE_JOB_EXECUTION", "false")
    monkeypatch.setenv("MLFLOW_EXPERIMENT_NAME", "secrets")
    said = []

    def histo(*arguments: str, code: int = 0) -> str:
        done = histo_here(*arguments, "--debug")
        assert done.returncode == code, done.stderr
        said.append(done.stdout + done.stderr)
        return done.stdout

    with tracking_server(work) as address:
        secret_address = address.replace("http://", f"http://alice:{SECRET}-3@")
        mlflow.set_tracking_uri(secret_address)
        monkeypatch.setenv("MLFLOW_TRACKING_URI", secret_address)
        data = ["--data", str(tiny_npz)]
        short = [*data, "--weights", "none", "--epochs", "1", "--batch-size", "9"]
        histo("train", *short, "--wandb", "true")
        histo("cv", *short, "--folds", "2")
        [run] = mlflow.MlflowClient().search_runs(
            [mlflow.get_experiment_by_name("secrets").experiment_id], "tags.`histo.entry_point` = 'train'"
        )
        first = "models:/histo-b3/1"
        reason = ["--force", "true", "--reason", f"because token={SECRET}-4 and {SECRET}-2"]
        histo("promote", "--version", "1", *reason, code=2 if _in_production("1") else 0)
        histo("promote", "--version", "2", *reason, code=2 if _in_production("2") else 0)
        histo("evaluate", *data, "--model", first)
        histo("predict", *data, "--model", first)
        histo("compare", first, "models:/histo-b3/2", *data)
        histo("export", first, *data, "--to", "torchscript")
        histo("history")
        histo("rollback", "--reason", f"password={SECRET}-5")
        histo("mirror", run.info.run_id)
        histo("report", run.info.run_id)
        histo("predict", *data, "--model", "models:/nowhere/1", code=2)
        histo("train", "--data", f"https://alice:{SECRET}-6@host/x.npz", code=2)
        with pytest.raises(SystemExit):
            run_command(
                make_command(), prog_name="search.py",
                arguments=[*data, "--weights", "none", "--trials", "1", "--repeats", "0", "--epochs", "1"],
            )  # fmt: skip
        with pytest.raises(SystemExit):
            run_command(make_command(), prog_name="search.py", arguments=[*data, "--storage", tuning, "--debug"])
    out, err = capfd.readouterr()
    files = [file for file in work.rglob("*") if file.is_file()]
    assert len(files) > 100
    lines = [line for line in "\n".join([*said, out, err]).splitlines() if SECRET in line]
    assert lines + [str(file) for file in files if SECRET.encode() in file.read_bytes()] == []


def _in_production(version: str) -> bool:
    import mlflow

    return str(mlflow.MlflowClient().get_registered_model("histo-b3").aliases.get("champion")) == version
