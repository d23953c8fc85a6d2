"""The report for anybody's model: from labels and probabilities in Python to the page that our own models get; keeps no run."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import wraps
from pathlib import Path
from typing import Any

import numpy as np
from markupsafe import escape
from numpy.typing import ArrayLike, NDArray

from histo_mlflow.console import say
from histo_mlflow.errors import RequestError
from histo_mlflow.evaluation.caveats import Caveat, caveats_of
from histo_mlflow.evaluation.findings import UNKNOWN_LOOKS, About, Details, Findings, evaluate_baselines
from histo_mlflow.evaluation.gallery import Album
from histo_mlflow.evaluation.kept_numbers import write_numbers
from histo_mlflow.evaluation.metrics import Evaluation, evaluate_predictions
from histo_mlflow.evaluation.predictions import Predictions
from histo_mlflow.evaluation.report_sections import draw_report
from histo_mlflow.evaluation.verdict import Verdict, verdict_of
from histo_mlflow.tiles.tile_set import TileSet, check_groups, check_pixels

_DOC = """

Or, for anybody's model, ``report(labels, probabilities, images)``:

{}"""


@dataclass(frozen=True, eq=False)
class OwnReport:
    """A report of predictions that were given in Python.

    Attributes:
        page: The file to open.
        verdict: What is to be thought of the model.
        caveats: What limits the figures.
        evaluation: The figures, with intervals.
    """

    page: Path
    verdict: Verdict
    caveats: tuple[Caveat, ...]
    evaluation: Evaluation

    def _repr_html_(self) -> str:
        caveats = "".join(f"<li>{escape(caveat.words)}</li>" for caveat in self.caveats)
        link = f'<a href="{escape(self.page.as_uri())}">{escape(self.page)}</a>'
        return f"<p><strong>{escape(self.verdict.describe())}</strong></p><ul>{caveats}</ul><p>{link}</p>"


def report_on(
    labels: ArrayLike,
    probabilities: ArrayLike,
    images: NDArray[np.uint8] | None = None,
    *,
    classes: Sequence[str] = (),
    folder: str | Path = "report",
    **more: Any,
) -> OwnReport:
    """Write the tables, pictures and ``report.html`` for predictions of any model, and return what is to be thought of it.

    What is not given is said to be not stated: nothing is assumed of how the model was made or how often the tiles were seen.

    Args:
        labels: ``(n_tiles,)`` names, or positions in `classes`.
        probabilities: ``(n_tiles, n_classes)``, rows summing to 1.
        images: ``(n_tiles, size, size, 3)`` uint8, to show errors and examples; None for a page without.
        classes: Names in the order of the columns; may be left out where labels are names: then in alphabetical order.
        folder: That everything is written to.
        **more: ``groups`` (n_tiles,) ids of patients or slides; ``names`` (n_tiles,) files of the tiles; ``model``, ``source``
            and ``selected``, texts for the page; ``baselines``, probabilities of classifiers that see only colour by name.

    Raises:
        RequestError: These are not labels and probabilities of the same tiles, or something unknown is given.
    """
    given = _Given.of(more)
    wanted = np.asarray(labels)
    names, positions = _number(wanted, tuple(classes), np.asarray(probabilities, dtype=np.float64))
    groups = None if given.groups is None else check_groups(np.asarray(given.groups).astype(np.str_), where="groups")
    predictions = Predictions(positions, np.asarray(probabilities, dtype=np.float64), names, groups)
    files = _texts("names", given.names, len(positions))
    if images is not None:
        check_pixels(images.shape, images.dtype, where="images")
        if len(images) != len(positions):
            raise RequestError(f"there are {len(images)} images for {len(positions)} labels; one for each tile is needed")
    said = {
        name: Predictions(positions, np.asarray(each, dtype=np.float64), names, groups)
        for name, each in given.baselines.items()
    }
    about = About(
        source=given.source,
        fingerprint="not stated" if images is None else hashlib.sha256(np.ascontiguousarray(images).tobytes()).hexdigest(),
        is_synthetic=False,
        tile_size_px=0 if images is None else int(images.shape[1]),
        models=(given.model,),
        selected=given.selected,
        looks=UNKNOWN_LOOKS,
    )
    details = Details(baselines=evaluate_baselines(said))
    findings = Findings(evaluate_predictions(predictions), np.arange(len(positions)), about, details, files)
    target = Path(folder).resolve()
    write_numbers(target, findings)
    draw_report(target, findings, _album(findings, images))
    verdict = verdict_of(findings)
    say(f"{verdict.describe()}\nreport: {target / 'report.html'}")
    return OwnReport(target / "report.html", verdict, caveats_of(findings), findings.evaluation)


@dataclass(frozen=True, kw_only=True)
class _Given:
    groups: ArrayLike | None = None
    names: ArrayLike | None = None
    model: str = "not stated"
    source: str = "tiles given in Python"
    selected: str = ""
    baselines: Mapping[str, ArrayLike]

    @classmethod
    def of(cls, more: Mapping[str, Any]) -> _Given:
        known = set(cls.__dataclass_fields__)
        if strangers := sorted(more.keys() - known):
            every = " ".join(["labels", "probabilities", "images", "classes", "folder", *sorted(known)])
            raise RequestError(f"report takes no {' '.join(strangers)}; known are {every}")
        return cls(**{"baselines": {}, **more})


def _number(
    labels: NDArray[Any], classes: tuple[str, ...], probabilities: NDArray[np.float64]
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """Return class names and the labels as positions among them; raises `RequestError` for labels of no class."""
    if np.issubdtype(labels.dtype, np.integer):
        return classes or tuple(str(k) for k in range(probabilities.shape[-1])), labels.astype(np.int64)
    texts = labels.astype(np.str_)
    names = classes or tuple(np.unique(texts).tolist())
    if strangers := sorted(set(texts.tolist()) - set(names)):
        raise RequestError(
            f"labels hold {' '.join(strangers)}, classes are {' '.join(names)}; name all, in the order of the columns"
        )
    return names, np.array([names.index(text) for text in texts.tolist()], dtype=np.int64)


def _texts(what: str, values: ArrayLike | None, n: int) -> NDArray[np.str_] | None:
    if values is None:
        return None
    texts = np.asarray(values).astype(np.str_)
    if texts.shape != (n,):
        raise RequestError(f"{what} have shape {texts.shape} for {n} tiles; one for each tile is needed")
    return texts


def _album(findings: Findings, images: NDArray[np.uint8] | None) -> Album:
    if images is None:
        return Album()
    import torch  # tiles are collected as for our own models

    from histo_mlflow.pipeline.albums import collect_album

    said = findings.predictions
    tiles = TileSet(images, said.labels, said.classes, said.groups, findings.about.source, findings.about.fingerprint)
    return collect_album(findings, tiles, None, torch.device("cpu"))


def with_own(job: Callable[..., Any]) -> Callable[..., Any]:
    """Return the job `report` as a function that takes labels and probabilities too."""

    @wraps(job)
    def report(*values: Any, **named: Any) -> Any:
        is_own = "labels" in named or (bool(values) and not isinstance(values[0], (str, Path)))
        return report_on(*values, **named) if is_own else job(*values, **named)

    report.__doc__ = (job.__doc__ or "") + _DOC.format(report_on.__doc__)
    return report
