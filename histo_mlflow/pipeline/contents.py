"""What every run records about itself: tags, options, data sets."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from histo_mlflow.base.secrets import hide_secrets
from histo_mlflow.console import warn
from histo_mlflow.errors import StoreError
from histo_mlflow.pipeline.names import RunName
from histo_mlflow.tiles.tile_set import Part, TileSet
from histo_mlflow.tracking.origin import describe_origin
from histo_mlflow.tracking.runs import Run

FOLD_TAG = "histo.fold"
"""Of a run of a fold: its number."""

REPORT_TAG = "histo.report"
"""Of a run whose report has failed, or was made later."""


@dataclass(frozen=True)
class Beginning:
    """How a run begins.

    Attributes:
        name: What it is called.
        tags: What others look for.
        about: What explains it, in ``about.json``.
    """

    name: RunName
    tags: Mapping[str, object]
    about: Mapping[str, object]

    @classmethod
    def of(cls, job: str, name: RunName, tiles: TileSet | None = None, **about: object) -> "Beginning":
        """Return the beginning of a run of a job, on these tiles if there are any; more about it can be given."""
        tags: dict[str, object] = {"histo.entry_point": job}
        if tiles is not None:
            tags["histo.data_fingerprint"] = tiles.fingerprint
            about = {"synthetic": tiles.is_synthetic, "tiles": list(tiles.notes), **about}
        return cls(name, tags, {**describe_origin(), **about})


def log_datasets(run: Run, parts: Sequence[Part], title: str) -> None:
    """Record each part as a dataset of its own name, with the fingerprint of all pixels of its set."""
    for part in parts:
        tiles = part.tiles
        profile = {
            "n_tiles": len(part),
            **({"encoder": tiles.encoder} if tiles.encoder else {"tile_size_px": tiles.tile_size_px}),
            "tiles_per_class": part.class_counts(),
            "sha256": tiles.fingerprint,
        }
        run.log_dataset(
            name=f"{Path(tiles.source).name} {title} {part.name}"[:500],
            split=part.name,
            source=tiles.source,
            fingerprint=tiles.fingerprint,
            profile=yaml.safe_dump(profile, sort_keys=False),
        )


@contextmanager
def not_at_the_cost_of_the_model(run: Run, what: str, *, then: str = "") -> Iterator[None]:
    """Turn whatever goes wrong with `what`, a picture, a page or a mere extra, into a warning and a tag.

    Hours of training must not depend on a font. Errors of the store are raised, because what comes next needs it. `then` says
    what follows from its lack; by default the command that draws it later.
    """
    try:
        yield
    except StoreError:
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {' '.join(str(error).split())[:300]}"
        remedy = then or f"Once that is corrected: histo report {run.id}"
        warn(f"{what} could not be made ({reason}); all else is kept. {remedy}")
        run.set_tags({REPORT_TAG: f"failed: {what}: {reason}"})


def log_config(run: Run, values: dict[str, Any]) -> None:
    """Keep the resolved options as parameters and as ``config.yaml``, which ``--config`` reads back."""
    run.log_params(values)
    # Value by value: the text as a whole would be no yaml any more where a value is hidden.
    shown = {name: hide_secrets(value) if isinstance(value, str) else value for name, value in values.items()}
    run.write("config.yaml", yaml.safe_dump(shown, sort_keys=False))
