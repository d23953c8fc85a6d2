"""`mlflow models serve`, started for real and asked over HTTP as its users would."""

import base64
import io
import json
import struct
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import mlflow
import numpy as np
import pandas as pd
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.colour_reader import register
from tests.servers import model_server

Ask = Callable[[object], tuple[int, Any]]


def _png(tile: NDArray[np.uint8], kind: str = "PNG") -> str:
    file = io.BytesIO()
    Image.fromarray(tile).save(file, kind)
    return base64.b64encode(file.getvalue()).decode()


def _bomb() -> str:
    """A PNG of 200 bytes that says it is 60,000 px wide and high."""

    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0))
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + header + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")).decode()


@pytest.mark.timeout(240)
def test_a_served_model_takes_arrays_and_encoded_images_and_outlives_bad_requests(work: Path) -> None:
    register(0.0)
    tiles = np.random.default_rng(0).integers(0, 256, (5, 32, 32, 3), dtype=np.uint8)
    expected = mlflow.pyfunc.load_model("models:/histo-b3/Production").predict(tiles)
    encoded = [_png(tile) for tile in tiles]
    with model_server("models:/histo-b3/Production", work) as address:

        def ask(request: object) -> tuple[int, Any]:
            asked = urllib.request.Request(
                f"{address}/invocations", json.dumps(request).encode(), {"Content-Type": "application/json"}
            )
            try:
                with urllib.request.urlopen(asked, timeout=60) as answer:
                    return answer.status, json.load(answer)
            except urllib.error.HTTPError as error:
                return error.code, error.read().decode()

        good: dict[str, object] = {
            "arrays": {"inputs": tiles.tolist()},
            "instances": {"instances": tiles.tolist()},
            "encoded, split": {"dataframe_split": {"columns": ["image"], "data": [[image] for image in encoded]}},
            "encoded, records": {"dataframe_records": [{"image": image} for image in encoded]},
            "encoded, list": {"inputs": encoded},
            "encoded, mapping": {"inputs": {"image": encoded}},
        }
        for name, request in good.items():
            status, answer = ask(request)
            assert status == 200, (name, answer)
            pd.testing.assert_frame_equal(pd.DataFrame(answer["predictions"]), expected, obj=name)
        status, answer = ask({"inputs": encoded, "params": {"abstain": True}})
        assert status == 400 and "above any threshold" in answer  # noqa: PT018

        ragged = tiles.tolist()
        ragged[3] = ragged[3][:-1]
        too_bright = tiles.tolist()
        too_bright[2][0][0][0] = 256
        for reason, request in {
            "row 2 is not an image": {"inputs": [*encoded[:2], base64.b64encode(b"no image").decode()]},
            "row 1 is not base64": {"inputs": [encoded[0], "?!"]},
            "row 1 can't be decoded": {"inputs": [encoded[0], base64.b64encode(base64.b64decode(encoded[1])[:900]).decode()]},
            "row 3 has 16 x 32 px": {"dataframe_records": [{"image": i} for i in [*encoded[:3], _png(tiles[0][:, :16])]]},
            "row 1 can't be decoded (Image size (3600000000 pixels)": {"inputs": [encoded[0], _bomb()]},
            "row 0 is not a colour image": {"inputs": [_png(tiles[0, :, :, 0])]},
            "row 2 is float": {"dataframe_records": [{"image": i} for i in [*encoded[:2], 0.5]]},
            "tiles are float64": {"inputs": (tiles[:1] / 255).tolist()},
            "row 2 holds values from 0 to 256": {"inputs": too_bright},
            "(1, 32, 3)": {"inputs": tiles[0, :1].tolist()},
            "give one column 'image'": {"dataframe_records": [{"tile": encoded[0], "name": "a"}]},
        }.items():
            status, answer = ask(request)
            assert status == 400, (reason, answer)
            assert reason in answer
            assert _still_answers(ask, encoded)
        status, answer = ask({"inputs": ragged})
        assert 400 <= status < 500, answer
        assert _still_answers(ask, encoded)


def _still_answers(ask: Ask, encoded: list[str]) -> bool:
    status, answer = ask({"inputs": encoded[:1]})
    return status == 200 and len(answer["predictions"]) == 1
