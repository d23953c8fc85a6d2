"""What a user is told of a run beside its figures: where it is to be seen, how it goes on, what comes next."""

from histo_mlflow.console import say
from histo_mlflow.tracking.addresses import how_to_see, local_place, run_page, whole_address
from histo_mlflow.tracking.named_runs import SHORT_CHARACTERS
from histo_mlflow.tracking.runs import Run


def short_id(run: Run) -> str:
    """Return as much of a run's id as names it to a person and to every command."""
    return run.id[:SHORT_CHARACTERS]


def announce_run(run: Run) -> None:
    """Say which run has begun, and where it is to be seen."""
    say(f"run {short_id(run)}: {run.name}\n  {describe_page(run)}")


def describe_page(run: Run) -> str:
    """Return the address of a run's page, and the command without which it is not there."""
    command, address = how_to_see(run.store), whole_address(run.store, run_page(run))
    return f"{command}    then {address}" if command else address


def describe_file(run: Run, artifact: str) -> str:
    """Return where an artifact is: a file here, or its page."""
    return str(local_place(run, artifact) or whole_address(run.store, run_page(run, artifact)))


def how_to_go_on(job: str, run: Run, *, is_project: bool) -> str:
    """Return the command that a run which was cut short goes on with."""
    command = f"mlflow run . -e {job} -P resume={short_id(run)}" if is_project else f"histo {job} --resume {short_id(run)}"
    return f"what was finished is kept; to go on: {command}"
