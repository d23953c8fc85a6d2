"""Every job is a function in Python too: options are keywords, what was found comes back, errors are exceptions."""

import inspect
from pathlib import Path

import mlflow
import nbformat
import pytest
from nbclient import NotebookClient

import histo_mlflow
from histo_mlflow.errors import OptionError
from histo_mlflow.jobs import find_jobs
from tests.conftest import PROJECT


def test_every_job_is_a_function_with_its_options_and_their_help() -> None:
    for job in find_jobs().values():
        name = job.function_name
        function = getattr(histo_mlflow, name)
        assert name in dir(histo_mlflow)
        assert function.__name__ == name
        assert job.help in function.__doc__
    parameters = inspect.signature(histo_mlflow.train).parameters
    assert parameters["epochs"].default == 20
    assert "epochs: How often every training tile is seen." in histo_mlflow.train.__doc__


def test_what_is_no_job_is_no_attribute() -> None:
    assert not hasattr(histo_mlflow, "trane")


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"epoch": 5}, "train has no option epoch; known are data test_data"),
        ({"epochs": 0}, "epochs=0: must be at least 1"),
        ({"epochs": "five"}, "epochs='five' must be int"),
    ],
)
def test_a_wrong_option_is_an_exception_of_one_line(options: dict[str, object], reason: str) -> None:
    with pytest.raises(OptionError, match=reason):
        histo_mlflow.train(**options)


@pytest.mark.usefixtures("small_network")
def test_train_and_judge_return_what_they_found(work: Path, tiny_npz: Path) -> None:
    trained = histo_mlflow.train(data=tiny_npz, epochs=1, weights="none", batch_size=9, val_fraction=0.34)
    run = mlflow.get_run(trained.run_id)
    assert run.data.metrics["val/balanced_accuracy"] == trained.val.overall["balanced_accuracy"].value
    assert (trained.version, trained.best_epoch, trained.test) == ("1", 1, None)
    assert mlflow.models.get_model_info(trained.model_uri).run_id == trained.run_id

    judged = histo_mlflow.evaluate(model=trained.run_id, data=tiny_npz, robustness=0)
    assert judged.looks == 1
    assert judged.test.overall["accuracy"].value == mlflow.get_run(judged.run_id).data.metrics["test/accuracy"]
    compared = histo_mlflow.compare(trained.run_id, trained.run_id, data=tiny_npz)
    assert compared.comparison.differences["balanced_accuracy"].value == 0

    written = histo_mlflow.predict(model=trained.run_id, data=tiny_npz, output="said.csv")
    assert written == work / "said.csv"
    assert len(written.read_text().splitlines()) == 55
    assert [decision.version for decision in histo_mlflow.history()] == ["1"]


@pytest.mark.slow
def test_the_example_of_the_readme_runs_in_a_notebook(work: Path, tiny_npz: Path) -> None:
    text = (PROJECT / "README.md").read_text().partition("## From Python")[2]
    example = text.partition("```python\n")[2].partition("```")[0]
    assert "histo_mlflow.train(" in example
    example = example.replace("/path/to/tiles.npz", str(tiny_npz)).replace("/path/to/test.npz", str(tiny_npz))
    cells = [nbformat.v4.new_code_cell(example), nbformat.v4.new_code_cell("print(trained.version)\nhisto_mlflow.train?")]
    notebook = nbformat.v4.new_notebook(cells=cells)
    NotebookClient(notebook, timeout=280, resources={"metadata": {"path": str(work)}}).execute()
    said = "".join(output.get("text", "") for output in notebook.cells[1].outputs)
    assert said.startswith("1\n")
    assert mlflow.search_runs(output_format="list")
