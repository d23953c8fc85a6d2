"""Files as nobody would write them: each is read or refused as our errors say, soon and in little memory.

HISTO_FUZZ_EXAMPLES says how many are tried of each kind; a thousand take about a minute.
"""

import io
import os
import resource
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from mlflow.exceptions import MlflowException
from PIL import Image

from histo_mlflow.errors import RequestError
from histo_mlflow.served_model.requests import batches_of
from histo_mlflow.tiles.npz import read_npz_images
from histo_mlflow.tiles.open import open_tiles
from histo_mlflow.tiles.unlabelled import open_images

pytestmark = pytest.mark.slow

_MAX_GROWTH_BYTES = 2**30
_tried = settings(
    derandomize=True,
    max_examples=int(os.environ.get("HISTO_FUZZ_EXAMPLES", "300")),
    deadline=10_000,  # milliseconds for one file
    suppress_health_check=list(HealthCheck),
)

# Where (as a share of the length), what is done, and with which byte.
_changes = st.lists(
    st.tuples(
        st.floats(0, 1, exclude_max=True),
        st.sampled_from(("set", "cut", "insert", "repeat")),
        st.integers(0, 255) | st.sampled_from((0, 255, 127, 128)),
    ),
    min_size=1,
    max_size=6,
)
_dtypes = st.one_of(
    arrays.scalar_dtypes(), arrays.array_dtypes(max_size=2), st.just(np.dtype("uint8")), st.just(np.dtype("int64"))
)
_any_array = _dtypes.flatmap(lambda dtype: arrays.arrays(dtype, arrays.array_shapes(min_dims=0, max_dims=4, min_side=0)))
_n_tiles = 3
_pixels = st.just(np.zeros((_n_tiles, 4, 4, 3), np.uint8))
_archive = st.fixed_dictionaries(
    {"data": _pixels | _any_array},
    optional={
        "labels": st.just(np.arange(_n_tiles)) | _any_array | arrays.arrays(arrays.scalar_dtypes(), (_n_tiles,)),
        "classes": st.just(np.array(["a", "b", "c"])) | arrays.arrays(_dtypes | arrays.unicode_string_dtypes(), (_n_tiles,)),
        "groups": arrays.arrays(_dtypes | arrays.byte_string_dtypes() | arrays.unicode_string_dtypes(), (_n_tiles,)),
    },
)


@pytest.fixture(autouse=True)
def _little_memory() -> Any:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    yield
    assert (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024 < _MAX_GROWTH_BYTES


def _changed(content: bytes, changes: list[tuple[float, str, int]]) -> bytes:
    out = bytearray(content)
    for share, what, byte in changes:
        at = int(share * len(out))
        if what == "set" and out:
            out[at] = byte
        elif what == "cut":
            del out[at : at + 1 + byte]
        elif what == "insert":
            out[at:at] = bytes([byte]) * 4
        elif what == "repeat":
            out[at:at] = out[at : at + 1 + byte]
    return bytes(out)


def _npz(save: Callable[..., None], **members: Any) -> bytes:
    file = io.BytesIO()
    save(file, **members)
    return file.getvalue()


_members = {
    "data": np.arange(9 * 4 * 4 * 3, dtype=np.uint8).reshape(9, 4, 4, 3),
    "labels": np.arange(9),
    "classes": np.array([f"kind {k}" for k in range(9)]),
    "groups": np.array([f"p{k}" for k in range(9)]),
}


def _read_or_refused(read: Callable[[], object], refusal: type[Exception] = RequestError) -> None:
    try:
        read()
    except refusal as error:
        message = str(error.message if isinstance(error, MlflowException) else error)
        assert len(message) < 2000
        assert "\n" not in message


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@_tried
@given(changes=_changes)
def test_damaged_archives(work: Path, save: Callable[..., None], changes: list[tuple[float, str, int]]) -> None:
    file = work / "a.npz"
    file.write_bytes(_changed(_npz(save, **_members), changes))
    _read_or_refused(lambda: open_tiles(file).fingerprint)
    _read_or_refused(lambda: read_npz_images(file))


@_tried
@given(key=st.sampled_from(sorted(_members)), changes=_changes, compressed=st.booleans())
def test_damaged_members_in_sound_archives(
    work: Path, key: str, changes: list[tuple[float, str, int]], compressed: bool
) -> None:
    file = work / "a.npz"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED) as archive:
        for name, values in _members.items():
            content = io.BytesIO()
            np.save(content, values)
            head, rest = content.getvalue()[:160], content.getvalue()[160:]
            archive.writestr(f"{name}.npy", _changed(head, changes) + rest if name == key else head + rest)
    _read_or_refused(lambda: open_tiles(file).fingerprint)


@pytest.mark.filterwarnings("ignore:Stored array in format:UserWarning")
@_tried
@given(members=_archive, compressed=st.booleans())
def test_arrays_of_any_kind(work: Path, members: dict[str, Any], compressed: bool) -> None:
    file = work / "a.npz"
    (np.savez_compressed if compressed else np.savez)(file, **members)
    _read_or_refused(lambda: open_tiles(file).fingerprint)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "TIFF"])
@_tried
@given(changes=_changes)
@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
def test_damaged_images(work: Path, form: str, changes: list[tuple[float, str, int]]) -> None:
    sound = io.BytesIO()
    Image.new("RGB", (16, 16), (200, 120, 180)).save(sound, format=form)
    content = _changed(sound.getvalue(), changes)
    folder = work / "tiles" / "a"
    folder.mkdir(parents=True, exist_ok=True)
    (folder.parent / "b").mkdir(exist_ok=True)
    (folder.parent / "b" / "sound.png").write_bytes(sound.getvalue())
    (folder / f"1.{form.lower()}").write_bytes(content)
    _read_or_refused(lambda: open_tiles(folder.parent))
    failures: list[str] = []
    list(open_images(str(folder)).blocks(failures))
    assert all("\n" not in failure for failure in failures)
    _read_or_refused(lambda: list(batches_of([content])), MlflowException)
