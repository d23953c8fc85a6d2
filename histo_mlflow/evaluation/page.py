"""What all pages are made with: templates, what they call, pictures that lie in the page itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from numpy.typing import NDArray

from histo_mlflow.base.escaping import visible
from histo_mlflow.base.lettering import letter
from histo_mlflow.evaluation import wording
from histo_mlflow.evaluation.intervals import CONFIDENCE
from histo_mlflow.evaluation.metrics import OVERALL_METRICS

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

_DPI = 110


def write_page(file: Path, folder: str, sections: Sequence[str], values: Mapping[str, Any]) -> None:
    """Write a page: its sections in order, each the template ``<folder>/<section>.html.j2``, filled with the same values."""
    names = ("begin", *(f"{folder}/{section}" for section in sections), "end")
    file.write_text("\n".join(render(f"{name}.html.j2", values) for name in names), encoding="utf-8")


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
    environment.globals |= {"confidence": round(100 * CONFIDENCE), "metrics": OVERALL_METRICS}
    formats = (wording.in_words, wording.in_percent, wording.in_two_parts, wording.signed, wording.short, picture_data)
    environment.filters |= {each.__name__: each for each in formats}
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
