"""Run the command line as ``python -m histo_mlflow``, the form that MLproject uses: it needs no installation."""

from histo_mlflow.cli import main

main()
