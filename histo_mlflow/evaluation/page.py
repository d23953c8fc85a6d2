"""What all pages are made with: templates, what they call, pictures that lie in the page itself."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined, select_autoescape
from markupsafe import Markup, escape
from numpy.typing import NDArray

from histo_mlflow.base.counting import many
from histo_mlflow.base.escaping import visible
from histo_mlflow.base.lettering import letter
from histo_mlflow.evaluation import marks, wording
from histo_mlflow.evaluation.class_curves import swatch_of
from histo_mlflow.evaluation.intervals import CONFIDENCE
from histo_mlflow.evaluation.metrics import OVERALL_METRICS

if TYPE_CHECKING:
    from matplotlib.figure import Figure as Picture

_DPI = 110
_LEAST_TYPE = 11.5  # px where a picture is shown at its own size; a narrow screen takes a little of that
_TYPE = "system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif"
_HEADING = re.compile(r"<h2>(.*?)</h2>", re.DOTALL)
_LARGEST_PX = 288  # of a tile on a page: enough to see nuclei of 224 px, and a page of many stays small
_SMALLEST_JPEG_PX = 64  # below, a JPEG's blocks are what is seen


def write_page(
    file: Path, folder: str, sections: Sequence[str], values: Mapping[str, Any], *, details: str | None = None
) -> None:
    """Write a page: its sections in order, each the template ``<folder>/<section>.html.j2``, filled with the same values.

    A section without anything to show is left out. After the first one stand the contents; with `details` follow the sections
    that print on new pages.
    """
    shown = {name: html for name in sections if (html := render(f"{folder}/{name}.html.j2", values).strip())}
    first, *others = shown
    begun = sections.index(details) if details else len(sections)
    contents = [(name, Markup(found[1])) for name in others if (found := _HEADING.search(shown[name]))]  # noqa: S704 - our own heading
    parts = [
        render("begin.html.j2", values),
        f'<section id="{first}">\n{shown[first]}\n</section>',
        render("contents.html.j2", {"contents": contents}),
    ]
    is_begun = False
    for name in others:
        starts = not is_begun and sections.index(name) >= begun
        is_begun |= starts
        kind = ' class="details"' if starts else ""
        parts.append(f'<section id="{name}"{kind}>\n{shown[name]}\n</section>')
    file.write_text("\n".join([*parts, render("end.html.j2", values)]), encoding="utf-8")


def render(template: str, values: Mapping[str, Any]) -> str:
    """Return a part of a page; names from the data are escaped, what can't be seen of them too."""
    return _environment().get_template(template).render(**values)


@cache
def _environment() -> Environment:
    environment = Environment(
        loader=PackageLoader("histo_mlflow.evaluation"),
        autoescape=select_autoescape(["html", "j2"]),
        undefined=StrictUndefined,
        finalize=lambda value: visible(value) if isinstance(value, str) and not isinstance(value, Markup) else value,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.globals |= {"confidence": round(100 * CONFIDENCE), "metrics": OVERALL_METRICS}
    environment.globals |= {"shade": marks.shade, "meaning": marks.meaning_of, "reach": marks.reach, "swatch_of": swatch_of}
    formats = (
        wording.in_words,
        wording.in_percent,
        wording.in_two_parts,
        wording.signed,
        wording.short,
        wording.have_intervals,
        wording.in_full,
        many,
        picture_data,
        breakable,
        with_code,
    )
    environment.filters |= {each.__name__: each for each in formats}
    return environment


def with_code(text: str) -> Markup:
    """Return a sentence whose commands, between backticks, are set as such."""
    return Markup(re.sub(r"`(.*?)`", r"<code>\1</code>", str(escape(visible(text)))))  # noqa: S704 - escaped before


def breakable(name: object) -> Markup:
    """Return a file name that may be broken into lines after each of its parts."""
    return Markup(re.sub(r"([/_-])", r"\1<wbr>", str(escape(visible(str(name))))))  # noqa: S704 - escaped before


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


def svg_data(picture: Picture) -> str:
    """Return the picture as an address that holds it as SVG, its texts as texts in the page's own type."""
    from matplotlib import rc_context
    from matplotlib.text import Text

    letter(picture)
    for text in picture.findobj(Text):
        assert isinstance(text, Text)
        text.set_fontsize(max(text.get_fontsize(), _LEAST_TYPE))
    buffer = io.StringIO()
    with rc_context({"svg.fonttype": "none", "svg.hashsalt": "histo"}):  # salted: the same picture is the same text
        picture.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    svg = re.sub(r"font-family: [^;\"]*", f"font-family: {_TYPE}", buffer.getvalue())
    return "data:image/svg+xml;base64," + base64.b64encode(svg.encode()).decode()


def picture_data(tile: NDArray[np.uint8]) -> str:
    """Return the tile as an address that holds the picture itself."""
    from PIL import Image

    image = Image.fromarray(tile)
    if max(image.size) > _LARGEST_PX:
        image.thumbnail((_LARGEST_PX, _LARGEST_PX))
    form, facts = ("PNG", {}) if max(image.size) < _SMALLEST_JPEG_PX else ("JPEG", {"quality": 85})
    with io.BytesIO() as buffer:
        image.save(buffer, format=form, **facts)
        return f"data:image/{form.lower()};base64," + base64.b64encode(buffer.getvalue()).decode()
