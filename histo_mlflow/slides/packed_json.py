"""JSON in a file as it is, gzipped or in a zip, of a bounded size; knows nothing of what it says."""

import json
import zipfile
import zlib
from collections.abc import Iterator
from gzip import BadGzipFile, GzipFile
from pathlib import Path
from typing import IO, Any

from histo_mlflow.base.plain_values import reason_of
from histo_mlflow.errors import AnnotationError

_MAX_BYTES = 2**29  # unpacked; as Python's objects they take ten times as much


def read_packed_json(file: Path) -> Any:
    """Return what the JSON of a file holds; of a zip, a list of what its files hold.

    Raises:
        AnnotationError: It is no JSON, not whole, or larger than anybody draws.
    """
    try:
        with file.open("rb") as opened:
            begin = opened.read(2)
            opened.seek(0)
            if begin == b"PK":
                return [json.loads(text) for text in _unzip(opened)]
            if begin == b"\x1f\x8b":
                with GzipFile(fileobj=opened) as unpacked:
                    return json.loads(_read_all(unpacked))
            return json.loads(_read_all(opened))
    except (BadGzipFile, zipfile.BadZipFile, zlib.error, EOFError, OSError, ValueError, NotImplementedError) as error:
        raise AnnotationError(
            f"{file} can't be read as GeoJSON ({reason_of(error)}); in QuPath: File, Export objects as GeoJSON"
        ) from None


def _unzip(opened: IO[bytes]) -> Iterator[bytes]:
    with zipfile.ZipFile(opened) as archive:
        names = [name for name in archive.namelist() if name.lower().endswith((".json", ".geojson"))]
        if not names:
            raise ValueError("the zip holds no .geojson or .json")
        for name in names:
            with archive.open(name) as member:
                yield _read_all(member)


def _read_all(opened: IO[bytes] | GzipFile) -> bytes:
    content = opened.read(_MAX_BYTES + 1)
    if len(content) > _MAX_BYTES:
        raise ValueError(f"it is larger than {_MAX_BYTES // 2**20} MiB unpacked; export annotations alone, without detections")
    return content
