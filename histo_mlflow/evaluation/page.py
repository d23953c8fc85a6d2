"""What all pages are made with: sections, their templates, pictures that lie in the page itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from numpy.typing import NDArray

from histo_mlflow.base.escaping import visible
from histo_mlflow.evaluation.intervals import CONFIDENCE
from histo_mlflow.evaluation.lettering import letter

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

_DPI = 110
T = TypeVar("T")


Section = Callable[[T], Mapping[str, Any] | None]
"""From what a page is about to what the template of the section's name shows; None where there is nothing to show."""


def write_page(file: Path, title: str, folder: str, sections: Sequence[Section[T]], subject: T) -> None:
    """Write a page: its sections in order, each filled into its template ``<folder>/<name of the section>.html.j2``."""
    filled = [(f"{folder}/{section.__name__}.html.j2", section(subject)) for section in sections]
    parts = [("begin.html.j2", {"title": title}), *filled, ("end.html.j2", {})]
    file.write_text("\n".join(render(name, values) for name, values in parts if values is not None), encoding="utf-8")


def render(template: str, values: Mapping[str, Any]) -> str:
    """Return a part of a page; names from the data are escaped, what can't be seen of them too."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("histo_mlflow.evaluation"),
        autoescape=select_autoescape(["html", "j2"]),
        undefined=StrictUndefined,
        finalize=lambda value: visible(value) if isinstance(value, str) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals["confidence"] = round(100 * CONFIDENCE)
    return environment


def keep_picture(file: Path, picture: Picture) -> str:
    """Write the picture as a PNG file, and return the same for a page (base64)."""
    png = png_of(picture)
    file.write_bytes(png)
    return base64.b64encode(png).decode()


def png_of(picture: Picture) -> bytes:
    """Return the picture as PNG; its texts get the fonts that they need."""
    letter(picture)
    buffer = io.BytesIO()
    picture.savefig(buffer, format="png", dpi=_DPI)
    return buffer.getvalue()


def picture_data(tile: NDArray[np.uint8]) -> str:
    """Return the tile as an address that holds the picture itself."""
    from PIL import Image

    with io.BytesIO() as buffer:
        Image.fromarray(tile).save(buffer, format="JPEG", quality=90, subsampling=0)
        return "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
