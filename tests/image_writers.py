"""Image files that Pillow does not write."""

import struct
import zlib
from pathlib import Path

_SIZE_PX = 32
_TWELVE_BIT = 2000


def write_16_bit_rgb(path: Path) -> None:
    """Write an RGB image with 12-bit values in 16 bits per channel, as PNG or TIFF by its suffix."""
    values = struct.pack(">H", _TWELVE_BIT) * 3 * _SIZE_PX
    path.write_bytes(_png(values) if path.suffix == ".png" else _tiff(values * _SIZE_PX))


def _png(row: bytes) -> bytes:
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = struct.pack(">IIBBBBB", _SIZE_PX, _SIZE_PX, 16, 2, 0, 0, 0)
    pixels = zlib.compress((b"\0" + row) * _SIZE_PX)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def _tiff(pixels: bytes) -> bytes:
    short, long = 3, 4
    n_tags = 9
    after = 8 + 2 + 12 * n_tags + 4
    tags = [
        (256, long, 1, _SIZE_PX), (257, long, 1, _SIZE_PX), (258, short, 3, after), (259, short, 1, 1 << 16),
        (262, short, 1, 2 << 16), (273, long, 1, after + 6), (277, short, 1, 3 << 16), (278, long, 1, _SIZE_PX),
        (279, long, 1, len(pixels)),
    ]  # fmt: skip
    entries = b"".join(struct.pack(">HHII", *tag) for tag in tags)
    head = b"MM" + struct.pack(">HIH", 42, 8, n_tags) + entries + bytes(4)
    return head + struct.pack(">HHH", 16, 16, 16) + pixels
