"""Search for the options that give the lowest validation loss: the command line, and the search itself.

The ranges are in tuning/search_space.py.
"""

import sys
from pathlib import Path

# Started as a script, Python looks for modules only beside this file.
sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from histo_mlflow.process import prepare

prepare()

from histo_mlflow.cli import JobCommand, run_command
from histo_mlflow.errors import OptionError
from histo_mlflow.jobs import Job
from tuning.options import Tune


def search(options: Tune) -> None:
    """Run trials until the study has as many as asked for, and record its result."""
    # Imported when the work begins: it takes seconds, and an option that is wrong needs none of it.
    from tuning.search_space import Space
    from tuning.trials import run_trials

    space = Space.of(options.search, epochs=options.recipe.fit.epochs)
    if fixed := sorted(options.given & set(space.names)):
        raise OptionError(f"{fixed[0]} is searched and can't be given; leave it out here, or out of --search")
    run_trials(options, space)


def make_command() -> JobCommand:
    """Return the command line of the search."""
    example = "python tuning/search.py --data tiles.npz --trials 20"
    return JobCommand(Job("search.py", Tune, search, stage="Learn", place=3, example=example))


if __name__ == "__main__":
    run_command(make_command(), prog_name="python tuning/search.py")
