import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest

from histo_mlflow.errors import RequestError, TileFormatError
from histo_mlflow.tiles.npz import read_npz_images
from histo_mlflow.tiles.open import open_tiles
from histo_mlflow.tiles.tile_set import TileSet
from tests.conftest import save_npz


def test_compressed_file_is_unpacked_once_and_again_when_it_changes(work: Path, tiny_tiles: TileSet) -> None:
    file = save_npz(work / "a.npz", tiny_tiles, compressed=True)
    open_tiles(file)
    (entry,) = (path for path in (work / "cache").iterdir() if path.is_dir())
    stamp = (entry / "images.npy").stat().st_mtime_ns
    open_tiles(file)
    assert (entry / "images.npy").stat().st_mtime_ns == stamp

    np.savez_compressed(file, data=tiny_tiles.images[:27], labels=tiny_tiles.labels[:27])
    assert len(open_tiles(file)) == 27


def test_fingerprint_sees_the_last_label(work: Path, tiny_tiles: TileSet) -> None:
    labels = tiny_tiles.labels.copy()
    labels[-1] = 0
    np.savez(work / "label.npz", data=tiny_tiles.images, labels=labels)
    assert open_tiles(work / "label.npz").fingerprint != tiny_tiles.fingerprint


def test_fortran_order_and_optional_arrays(work: Path, tiny_tiles: TileSet) -> None:
    classes = [f"class {k}" for k in range(9)]
    groups = np.arange(54) // 3
    np.savez(
        work / "a.npz", data=np.asfortranarray(tiny_tiles.images), labels=tiny_tiles.labels, classes=classes, groups=groups
    )
    tiles = open_tiles(work / "a.npz")

    np.testing.assert_array_equal(tiles.images, tiny_tiles.images)
    assert tiles.classes == tuple(classes)
    assert tiles.groups is not None
    assert tiles.groups[53] == "17"


def test_medmnist_default_is_train_and_others_are_named(work: Path, tiny_tiles: TileSet) -> None:
    images, labels = tiny_tiles.images, tiny_tiles.labels[:, None]
    np.savez(
        work / "path.npz",
        train_images=images[:36], train_labels=labels[:36], test_images=images[36:], test_labels=labels[36:],
    )  # fmt: skip

    assert len(open_tiles(work / "path.npz")) == 36
    test = open_tiles("path.npz#test")
    np.testing.assert_array_equal(test.labels, tiny_tiles.labels[36:])
    with pytest.raises(RequestError, match=r"no val split.*path\.npz#test"):
        open_tiles("path.npz#val")


def test_medmnist_of_another_kind_is_not_taken_for_tissue(work: Path, tiny_tiles: TileSet) -> None:
    keep = tiny_tiles.labels < 8
    np.savez(work / "blood.npz", train_images=tiny_tiles.images[keep], train_labels=tiny_tiles.labels[keep, None])
    with pytest.raises(TileFormatError, match="add an array `classes`"):
        open_tiles(work / "blood.npz")


def test_pixels_alone_need_no_labels(work: Path, tiny_tiles: TileSet) -> None:
    for save in (np.savez, np.savez_compressed):
        save(work / "a.npz", data=tiny_tiles.images)
        np.testing.assert_array_equal(read_npz_images(work / "a.npz")[0], tiny_tiles.images)


def _truncate(path: Path, tiles: TileSet) -> None:
    save_npz(path, tiles)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def _damage(path: Path, tiles: TileSet) -> None:
    save_npz(path, tiles, compressed=True)
    content = bytearray(path.read_bytes())
    content[5000:5200] = bytes(200)
    path.write_bytes(content)


def _flip_a_byte(path: Path, tiles: TileSet) -> None:
    save_npz(path, tiles)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)


def _save_raw(path: Path, tiles: TileSet, **arrays: bytes) -> None:
    """Write members as they are given, which numpy would not."""
    np.savez(path, **{name: value for name, value in (("data", tiles.images), ("labels", tiles.labels)) if name not in arrays})
    with zipfile.ZipFile(path, "a", zipfile.ZIP_DEFLATED) as archive:
        for name, content in arrays.items():
            archive.writestr(f"{name}.npy", content)


def _npy(shape: str, descr: str = "<i8", content: bytes = b"") -> bytes:
    header = f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}}}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode() + content


_TWO = np.arange(54) % 2
_NAMED = {f"group {kind}": groups for kind, groups in {
    "nan": np.r_[np.nan, np.arange(53.0)],
    "empty": np.array(["", *map(str, range(53))]),
    "none": np.array([*map(str, range(53)), "None"]),
}.items()}  # fmt: skip


def _add_a_byte(path: Path, tiles: TileSet) -> None:
    """Behind the values, where numpy writes nothing."""
    np.savez(path, labels=tiles.labels)
    with zipfile.ZipFile(path, "a") as archive:
        archive.writestr("data.npy", _npy(str(tiles.images.shape), "|u1", tiles.images.tobytes() + b"x"))


BAD_FILES = {
    "a byte too many": (_add_a_byte, "not as long as its shape"),
    "two labels without names": (lambda p, t: np.savez(p, data=t.images, labels=_TWO), "labels 0 1 and does not name them"),
    "labels from 1": (lambda p, t: np.savez(p, data=t.images, labels=_TWO + 1), "labels 1 2 and does not name them"),
    "flipped byte": (_flip_a_byte, "is damaged .*CRC"),
    "labels of 80 TB": (lambda p, t: _save_raw(p, t, labels=_npy("(10000000000000,)")), "not as long as its shape"),
    "labels that inflate": (
        lambda p, t: _save_raw(p, t, labels=_npy("(5000000,)", content=bytes(40_000_000))),
        "one for each of 54 tiles",
    ),
    "labels of wide items": (lambda p, t: _save_raw(p, t, labels=_npy("(54,)", "|V5000000")), "truncated"),
    "negative size": (lambda p, t: _save_raw(p, t, data=_npy("(2, -32, -32, 3)", "|u1", bytes(6144))), "impossible shape"),
    "nested header": (lambda p, t: _save_raw(p, t, labels=_npy("(" + "-" * 6000 + "1,)")), "is not a numpy array"),
    "names in another code": (
        lambda p, t: np.savez(p, data=t.images, labels=t.labels, classes=np.array([b"\xff%d" % k for k in range(9)])),
        "no UTF-8",
    ),
    "a million names": (
        lambda p, t: np.savez_compressed(p, data=t.images, labels=t.labels, classes=np.zeros(1_000_000, "U1")),
        "one name for each class",
    ),
    "the same name twice": (
        lambda p, t: np.savez(p, data=t.images, labels=_TWO, classes=["Schleimh\u00e4ute", "Schleimha\u0308ute"]),
        "repeated class names",
    ),
    **{
        name: (
            lambda p, t, groups=groups: np.savez(p, data=t.images, labels=t.labels, groups=groups),
            "1 of 54 tiles have no group",
        )
        for name, groups in _NAMED.items()
    },
    "not an npz": (lambda p, _t: p.write_text("tiles"), "is not an npz file"),
    "truncated": (_truncate, "is truncated"),
    "damaged": (_damage, "is damaged"),
    "object array": (lambda p, t: np.savez(p, data=np.array([None] * 3), labels=t.labels[:3]), "object array"),
    "object labels": (lambda p, t: np.savez(p, data=t.images, labels=np.array([None] * 54)), "object array"),
    "missing keys": (lambda p, t: np.savez(p, x=t.images), "`data` and `labels` are needed"),
    "missing labels": (lambda p, t: np.savez(p, data=t.images), "has no `labels`"),
    "float images": (lambda p, t: np.savez(p, data=t.images / 255, labels=t.labels), "float64 values; tiles must be uint8"),
    "wrong shape": (lambda p, t: np.savez(p, data=t.images[..., :2], labels=t.labels), r"shape \(54, 32, 32, 2\)"),
    "one pixel": (lambda p, t: np.savez(p, data=t.images[:, :1, :1], labels=t.labels), "each tile has 1 x 1 px"),
    "not square": (lambda p, t: np.savez(p, data=t.images[:, :20], labels=t.labels), "must be square"),
    "no tiles": (lambda p, t: np.savez(p, data=t.images[:0], labels=t.labels[:0]), "holds no tiles"),
    "label too high": (lambda p, t: np.savez(p, data=t.images, labels=t.labels + 1), "label 9 of tile 8 is out of range"),
    "label negative": (lambda p, t: np.savez(p, data=t.images, labels=t.labels - 1), "label -1 of tile 0 is out of range"),
    "float labels": (lambda p, t: np.savez(p, data=t.images, labels=t.labels / 2), "labels must be integers"),
    "label count": (lambda p, t: np.savez(p, data=t.images, labels=t.labels[1:]), "one for each of 54 tiles"),
    "group count": (
        lambda p, t: np.savez(p, data=t.images, labels=t.labels, groups=t.labels[1:]),
        "groups.*one group for each",
    ),
}


@pytest.mark.parametrize("case", BAD_FILES)
def test_bad_file_is_refused_with_its_name_and_the_reason(work: Path, tiny_tiles: TileSet, case: str) -> None:
    make, reason = BAD_FILES[case]
    make(work / "bad.npz", tiny_tiles)
    with pytest.raises(TileFormatError, match=reason) as caught:
        assert not open_tiles(work / "bad.npz").fingerprint
    assert "bad.npz" in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not [path for path in (work / "cache").glob("*") if path.is_dir()], "a failed unpacking must leave nothing"


def test_a_flipped_byte_is_found_where_only_pixels_are_read(work: Path, tiny_tiles: TileSet) -> None:
    _flip_a_byte(work / "bad.npz", tiny_tiles)
    with pytest.raises(TileFormatError, match=r"is damaged .*CRC"):
        read_npz_images(work / "bad.npz")


def test_class_names_are_the_same_in_both_unicode_forms(work: Path, tiny_tiles: TileSet) -> None:
    for form in ("NFC", "NFD"):
        names = [unicodedata.normalize(form, name) for name in ("Schleimhäute", "Stroma")]
        np.savez(work / f"{form}.npz", data=tiny_tiles.images, labels=_TWO, classes=names)
    assert open_tiles(work / "NFD.npz").classes == open_tiles(work / "NFC.npz").classes


def test_class_names_saved_as_bytes_are_text(work: Path, tiny_tiles: TileSet) -> None:
    np.savez(work / "a.npz", data=tiny_tiles.images, labels=tiny_tiles.labels, classes=np.array([b"K%d" % k for k in range(9)]))
    assert open_tiles(work / "a.npz").classes == tuple(f"K{k}" for k in range(9))


@pytest.mark.parametrize("name", ["T(1)", "A&B", "a,b", "x%", " ", "a/b", "-1+2", "=A1"])
def test_class_names_that_can_not_name_a_metric_are_refused(work: Path, tiny_tiles: TileSet, name: str) -> None:
    names = [*(f"K{k}" for k in range(8)), name]
    np.savez(work / "a.npz", data=tiny_tiles.images, labels=tiny_tiles.labels, classes=names)
    with pytest.raises(TileFormatError, match="rename it"):
        open_tiles(work / "a.npz")


def test_what_a_killed_process_left_does_not_block_the_cache(work: Path, tiny_tiles: TileSet) -> None:
    file = save_npz(work / "a.npz", tiny_tiles, compressed=True)
    open_tiles(file)
    (entry,) = (path for path in (work / "cache").iterdir() if path.is_dir())
    entry.rename(entry.with_suffix(".draft"))
    assert len(open_tiles(file)) == 54
    assert [path.name for path in (work / "cache").iterdir() if path.is_dir()] == [entry.name]


@pytest.mark.parametrize("key", ["groups", "classes"])
@pytest.mark.parametrize("code_point", [0x110000, 0xD800])
@pytest.mark.parametrize("order", ["<", ">"])
def test_text_of_impossible_characters_is_refused(
    work: Path, tiny_tiles: TileSet, key: str, code_point: int, order: str
) -> None:
    names = np.array([f"n{k}" for k in range(54 if key == "groups" else 9)], dtype=f"{order}U4")
    names.view(f"{order}u4")[5] = code_point
    np.savez(work / "a.npz", data=tiny_tiles.images, labels=tiny_tiles.labels, **{key: names})
    with pytest.raises(TileFormatError, match="does not hold text"):
        open_tiles(work / "a.npz")


def test_groups_beside_splits_are_named_as_passed_over(work: Path, tiny_tiles: TileSet) -> None:
    for save in (np.savez, np.savez_compressed):
        save(work / "a.npz", train_images=tiny_tiles.images, train_labels=tiny_tiles.labels, groups=np.arange(54))
        (note,) = open_tiles(work / "a.npz").passed_over
        assert "`groups` of" in note


def test_more_tiles_than_labels_fit_in_memory_are_refused_from_the_header(work: Path, tiny_tiles: TileSet) -> None:
    with zipfile.ZipFile(work / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive, archive.open("data.npy", "w") as member:
        member.write(_npy(f"({2**24 + 1}, 2, 2, 3)", "|u1"))
        for _ in range(12):
            member.write(bytes(2**24 + 1))
    with pytest.raises(TileFormatError, match="16777217 tiles; 16777216 at most"):
        read_npz_images(work / "a.npz")


def test_of_many_and_odd_keys_only_some_are_named(work: Path) -> None:
    with zipfile.ZipFile(work / "a.npz", "w") as archive:
        for k in range(1000):
            archive.writestr(f"k\n\x1b{k}.npy", b"")
    with pytest.raises(TileFormatError, match="and 990 more") as caught:
        open_tiles(work / "a.npz")
    assert str(caught.value).isprintable()


def test_an_error_that_quotes_the_file_is_shortened(work: Path, tiny_tiles: TileSet) -> None:
    """Of a name with a wrong length zipfile quotes all that follows."""
    file = save_npz(work / "a.npz", tiny_tiles, compressed=True)
    content = bytearray(file.read_bytes())
    content[26:28] = (5000).to_bytes(2, "little")  # length of the name in the first local header
    file.write_bytes(content)
    with pytest.raises(TileFormatError, match="copy or save it again") as refused:
        open_tiles(file)
    assert len(str(refused.value)) < 500
