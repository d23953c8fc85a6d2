"""Start the command line, as ``histo`` or as ``python -m histo_mlflow``, the form of MLproject, which needs no installation."""

from histo_mlflow.process import prepare


def start() -> None:
    """Prepare the process, then import the command line and run it."""
    prepare()
    from histo_mlflow.cli import main

    main()


if __name__ == "__main__":
    start()
