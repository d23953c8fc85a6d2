"""Tiles at the scale of a model: one that has learnt from tiles of one scale is not asked about another by mistake."""

from dataclasses import replace

from histo_mlflow.errors import RequestError
from histo_mlflow.evaluation.caveats import Caveat, learnt_from, other_scale, scale_not_stated
from histo_mlflow.models.model import Model
from histo_mlflow.tiles.pixels import as_joined
from histo_mlflow.tiles.tile_set import TileSet

SCALE_NOTE = "another scale"
"""How the note begins that tiles show another scale than a model has learnt from."""

TOLERANCE = 0.1
"""Share by which scales may differ: scanners of one nominal magnification differ by some per cent."""


def describe_mismatch(model: Model, size_px: int, microns_per_pixel: float | None) -> str | None:
    """Return how the scale of tiles differs from that of the model, in words; None if it does not, or either is not given.

    The network brings tiles to its own size, so that the scale is that of a tile as a whole.
    """
    own = model.facts.microns_per_pixel
    if own is None or microns_per_pixel is None:
        return None
    shown = microns_per_pixel * size_px / model.facts.tile_size_px
    if abs(shown / own - 1) <= TOLERANCE:
        return None
    edge, of_model = microns_per_pixel * size_px, own * model.facts.tile_size_px
    return f"a tile shows {edge:.0f} um of tissue, those that {model.address} has learnt from {of_model:.0f} um"


def middle_px(model: Model, size_px: int, microns_per_pixel: float | None, *, is_rescaled: bool) -> int:
    """Return the edge length in pixels of the middle of a tile that shows as much tissue as the model's: of all if none differ.

    Raises:
        RequestError: The scales differ and nobody has asked to rescale, or a tile shows less than the model's.
    """
    mismatch = describe_mismatch(model, size_px, microns_per_pixel)
    if mismatch is None:
        return size_px
    own = model.facts.microns_per_pixel
    assert own is not None
    assert microns_per_pixel is not None
    wanted = round(own * model.facts.tile_size_px / microns_per_pixel)
    if wanted > size_px:
        raise RequestError(f"{mismatch}; cut tiles of {wanted} px or more from the slides, or correct microns_per_pixel")
    if not is_rescaled:
        raise RequestError(f"{mismatch}; give --rescale true to take the middle of each, or correct microns_per_pixel")
    return wanted


def at_scale_of(model: Model, tiles: TileSet, *, is_rescaled: bool) -> TileSet:
    """Return the tiles as the model is to see them; raises as `middle_px`.

    The fingerprint stays that of the whole tiles: a look at their middle is a look at the set.
    """
    size_px = middle_px(model, tiles.tile_size_px, tiles.microns_per_pixel, is_rescaled=is_rescaled)
    if size_px == tiles.tile_size_px:
        return tiles
    note = f"{SCALE_NOTE} than the model's: of each tile the middle of {size_px} px is shown to it"
    return replace(tiles, images=as_joined(tiles.images).middle(size_px), notes=(*tiles.notes, note))


def find_caveats(model: Model, tiles: TileSet) -> tuple[Caveat, ...]:
    """Return what limits the figures of a model on these tiles: that it has learnt from them, and what of scales is known."""
    found = [learnt_from()] if tiles.fingerprint == model.facts.data_fingerprint else []
    found += [other_scale(note) for note in tiles.notes if note.startswith(SCALE_NOTE)]
    lacking = {"the tiles": tiles.microns_per_pixel, "what the model has learnt from": model.facts.microns_per_pixel}
    if not tiles.encoder and (whose := [name for name, known in lacking.items() if known is None]):
        found.append(scale_not_stated(" and of ".join(whose)))
    return tuple(found)
