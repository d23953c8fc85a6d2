"""What each confusion costs; a yaml may say it otherwise."""

from pathlib import Path

import numpy as np

from histo_mlflow.base.plain_values import read_yaml_mapping, shorten
from histo_mlflow.errors import OptionError, SourceNotFoundError
from histo_mlflow.evaluation.intervals import Floats
from histo_mlflow.evaluation.options import DEFAULT_COSTS

# A tumour that is called something else may be overlooked: this costs most, above all if it is called healthy mucosa. A false
# alarm is looked at again by a person. Any other confusion costs 1. The unit is that of an ordinary confusion.
_MISSED_TUMOUR, _TUMOUR_CALLED_NORMAL, _FALSE_ALARM = 5.0, 10.0, 2.0
_MAX_COST = 1e9
_FORM = "of costs, of the form {TUM: {NORM: 10, STR: 5}}: true class, called class, cost"


def default_costs(classes: tuple[str, ...]) -> Floats:
    """Return ``(n_classes, n_classes)``, rows true, columns called: 0 on the diagonal, 1 elsewhere, more about tumour.

    A missed tumour (``TUM``) costs 5, one that is called normal mucosa (``NORM``) 10, a false alarm 2. These are a convention
    of this project that gives errors an order, not the result of a study; set your own.
    """
    costs = 1.0 - np.eye(len(classes))
    if "TUM" in classes:
        tumour = classes.index("TUM")
        costs[tumour, :], costs[:, tumour] = _MISSED_TUMOUR, _FALSE_ALARM
        costs[tumour, tumour] = 0.0
        if "NORM" in classes:
            costs[tumour, classes.index("NORM")] = _TUMOUR_CALLED_NORMAL
    return costs


def read_costs(source: str, classes: tuple[str, ...]) -> Floats:
    """Return the costs that a yaml of the form ``{TRUE: {CALLED: cost}}`` states; pairs that it leaves out keep the default.

    Raises:
        RequestError: There is no such file, a class in it is unknown, or a cost is not a number from 0 up.
    """
    costs = default_costs(classes)
    if source == DEFAULT_COSTS:
        return costs
    path = Path(source).expanduser()
    if not path.is_file():
        raise SourceNotFoundError(
            f"costs={source}: there is no such file; give a yaml such as {{TUM: {{NORM: 10}}}}, or `{DEFAULT_COSTS}`"
        )
    try:
        stated = read_yaml_mapping(path)
        if not all(isinstance(row, dict) for row in stated.values()):
            raise ValueError("a class has no costs by called class")
    except ValueError as error:
        raise OptionError(f"costs={source}: is not a yaml {_FORM} ({error})") from None
    for true, row in stated.items():
        for called, cost in row.items():
            if unknown := [name for name in (true, called) if name not in classes]:
                raise OptionError(
                    f"costs={source}: there is no class {shorten(unknown[0])!r}; the classes are {' '.join(classes)}"
                )
            if isinstance(cost, bool) or not isinstance(cost, int | float) or not 0 <= cost <= _MAX_COST:
                raise OptionError(
                    f"costs={source}: the cost of calling {true} {called} is {shorten(cost)}; "
                    f"give a number from 0 to {_MAX_COST:g}"
                )
            costs[classes.index(true), classes.index(called)] = cost
    return costs
