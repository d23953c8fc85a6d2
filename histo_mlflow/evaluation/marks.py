"""What figures made of HTML are drawn with: shades of cells, places on an axis, what names of classes mean."""

from histo_mlflow.evaluation.intervals import Estimate

_RIGHT, _WRONG, _WHITE, _BLACK = (8, 64, 129), (166, 54, 3), (255, 255, 255), (0, 0, 0)

_MEANINGS = {
    "ADI": "adipose tissue", "BACK": "background", "DEB": "debris", "LYM": "lymphocytes", "MUC": "mucus",
    "MUS": "smooth muscle", "NORM": "normal mucosa", "STR": "tumour-associated stroma", "TUM": "tumour epithelium",
}  # fmt: skip
"""Of the nine tissue classes (Kather et al. 2018, NCT-CRC-HE-100K)."""


def meaning_of(name: str) -> str:
    """Return what a class is in full, or "" where its name is all that is known."""
    return _MEANINGS.get(name, "")


def shade(share: float, *, is_right: bool) -> str:
    """Return colours of a cell of the confusion matrix as CSS: the darker the more, blue for right and brown for wrong.

    Errors are few where a model is good, so their shade grows with the root. The ink is whichever of black and white contrasts
    more (WCAG 2.2, relative luminance).
    """
    strength = share if is_right else share**0.5
    full = _RIGHT if is_right else _WRONG
    ground = tuple(round(255 + strength * (each - 255)) for each in full)
    ink = max((_WHITE, _BLACK), key=lambda each: _contrast(each, ground))
    return f"background:rgb{ground};color:rgb{ink}".replace(" ", "")


def reach(estimate: Estimate, *, low: float = 0.0, high: float = 1.0) -> dict[str, float | None]:
    """Return where value and interval stand on an axis from `low` to `high`, in percent: ``at``, ``start``, ``width``.

    None where there is none; what lies beyond the axis stands at its end.
    """

    def place(value: float) -> float:
        return round(100 * (min(max(value, low), high) - low) / (high - low), 2)

    if not estimate.is_defined:
        return {"at": None, "start": None, "width": None}
    if not estimate.has_interval:
        return {"at": place(estimate.value), "start": None, "width": None}
    start, end = place(estimate.low), place(estimate.high)
    return {"at": place(estimate.value), "start": start, "width": round(end - start, 2)}


def _contrast(a: tuple[int, ...], b: tuple[int, ...]) -> float:
    lighter, darker = sorted((_luminance(a), _luminance(b)), reverse=True)
    return (lighter + 0.05) / (darker + 0.05)


def _luminance(colour: tuple[int, ...]) -> float:
    parts = [each / 255 for each in colour]
    linear = [each / 12.92 if each <= 0.04045 else ((each + 0.055) / 1.055) ** 2.4 for each in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
