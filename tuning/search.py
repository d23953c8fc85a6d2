"""Search for the options that give the lowest validation loss: the script. The job is tuning/tune.py.

The ranges are in tuning/search_space.py.
"""

import sys
from dataclasses import replace
from pathlib import Path

# Started as a script, Python looks for modules only beside this file; inside an installed package it finds the package anyway.
if (_PROJECT := Path(__file__).resolve().parent.parent).joinpath("histo_mlflow").is_dir():
    sys.path.insert(0, str(_PROJECT))

from histo_mlflow.process import prepare

prepare()

from histo_mlflow.cli import JobCommand, run_command
from histo_mlflow.jobs import find_jobs


def make_command() -> JobCommand:
    """Return the command line of the search."""
    return JobCommand(
        replace(find_jobs()["tune"], name="search.py", example="python tuning/search.py --data tiles.npz --trials 20")
    )


if __name__ == "__main__":
    run_command(make_command(), prog_name="python tuning/search.py")
