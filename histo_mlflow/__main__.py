"""Start the command line, as ``histo`` or as ``python -m histo_mlflow``, the form of MLproject, which needs no installation."""

import gc

from histo_mlflow.process import prepare

_COLLECT_EVERY = 50_000  # new objects; Python's 700 is a collection for every few functions that are imported


def start() -> None:
    """Import what the command line needs and run it."""
    prepare()
    # What is imported stays. Looking for garbage in it again and again takes a quarter of the start.
    gc.disable()
    from histo_mlflow.cli import main

    gc.freeze()
    gc.set_threshold(_COLLECT_EVERY)
    gc.enable()
    main()


if __name__ == "__main__":
    start()
