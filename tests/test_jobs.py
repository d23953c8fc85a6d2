"""What every job must be; one that is new needs no test here."""

import shlex
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

import histo_mlflow
import histo_mlflow.jobs
from histo_mlflow.cli import JobCommand, cli
from histo_mlflow.jobs import STAGES, Job, as_function, find_jobs
from histo_mlflow.options import JobOptions, build, flatten, option_fields
from tests.conftest import PROJECT

OF_THE_COMMAND_LINE_ALONE = {"runs", "history", "rollback", "report", "mirror", "deliver", "download", "cache"}
pytestmark = pytest.mark.usefixtures("work")  # a job asks whether the store answers
EVERY_JOB = pytest.mark.parametrize("job", find_jobs().values(), ids=lambda job: job.name)


@EVERY_JOB
def test_its_example_is_a_command_that_would_be_run(job: Job) -> None:
    program, name, *arguments = shlex.split(job.example)
    assert (program, name) == ("histo", job.name)
    asked: list[JobOptions] = []
    JobCommand(replace(job, run=asked.append)).main(arguments, standalone_mode=False)
    assert isinstance(asked[0], job.options)


@EVERY_JOB
def test_its_help_says_what_it_does_and_what_each_option_means(job: Job) -> None:
    assert job.help.endswith(".")
    assert job.stage in STAGES
    for name, part in option_fields(job.options).items():
        assert isinstance(part.default, (str, int, float, bool)), name
        assert len(part.metadata["option"].help) > 10, name


@EVERY_JOB
def test_its_options_survive_the_way_to_values_and_back(job: Job) -> None:
    _, _, *arguments = shlex.split(job.example)
    asked: list[JobOptions] = []
    JobCommand(replace(job, run=asked.append)).main(arguments, standalone_mode=False)
    assert build(job.options, flatten(asked[0]), given=asked[0].given) == asked[0]
    assert list(flatten(asked[0])) == list(option_fields(job.options))


@EVERY_JOB
def test_it_says_what_it_returns(job: Job) -> None:
    assert job.run.__annotations__["return"] not in {None, "None"}


def test_mlproject_has_the_jobs_as_entry_points_and_declares_no_parameters() -> None:
    entry_points = yaml.safe_load((PROJECT / "MLproject").read_text())["entry_points"]
    jobs = set(find_jobs()) - OF_THE_COMMAND_LINE_ALONE
    expected = {name: {"command": f"python -m histo_mlflow {name}"} for name in jobs}
    expected |= {"main": expected["train"], "tune": {"command": "python tuning/search.py"}}
    assert entry_points == expected


def test_a_new_job_is_one_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The recipe of CONTRIBUTING.md, followed."""
    (tmp_path / "count.py").write_text(
        '''"""Count the tiles of a source."""

from dataclasses import dataclass

from histo_mlflow.jobs import job
from histo_mlflow.options import JobOptions, option


@dataclass(frozen=True)
class Count(JobOptions):
    """Count the tiles of a source."""

    data: str = option("demo", "Tiles to count, as in `train --data`.")
    at_most: int = option(1000, "Stop counting here.", at_least=1)


@job("Judge", 9, example="histo count --data tiles.npz")
def count(options: Count) -> int:
    """Return how many tiles there are."""
    from histo_mlflow.tiles.open import open_tiles

    return min(options.at_most, len(open_tiles(options.data)))
'''
    )
    with monkeypatch.context() as patch:
        patch.setattr(histo_mlflow.jobs, "__path__", [*histo_mlflow.jobs.__path__, str(tmp_path)])
        patch.setattr(histo_mlflow.jobs, "_JOBS", dict(histo_mlflow.jobs._JOBS))
        find_jobs.cache_clear()
        job = find_jobs()["count"]
        assert list(find_jobs())[list(find_jobs()).index("count") - 1] == "compare", "listed in the order of work"
        assert JobCommand(job).main(["--at_most", "5"], standalone_mode=False) == 5
        (tmp_path / "count.yaml").write_text("at_most: 7\n")
        assert JobCommand(job).main(["--config", str(tmp_path / "count.yaml")], standalone_mode=False) == 7
        assert histo_mlflow.count(at_most=9) == 9
        assert "Stop counting here." in as_function("count").__doc__
    find_jobs.cache_clear()
    as_function.cache_clear()
    assert "count" not in find_jobs()
    assert set(cli.commands) == set(find_jobs())
