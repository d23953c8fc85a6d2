"""What all pages of ours are made with: a template, pictures that lie in the page itself."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from numpy.typing import NDArray

from histo_mlflow.base.escaping import visible
from histo_mlflow.evaluation.lettering import letter

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

_DPI = 110


def render(template: str, page: Mapping[str, Any]) -> str:
    """Return a page of ours; names from the data are escaped, what can't be seen of them too."""
    environment = Environment(
        loader=PackageLoader("histo_mlflow.evaluation", "."),
        autoescape=select_autoescape(["html", "j2"]),
        undefined=StrictUndefined,
        finalize=lambda value: visible(value) if isinstance(value, str) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template(template).render(**page)


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
