"""The share of the short audit in a training: seconds of `check_tiles` against those of the whole of `train`, caches empty.

Of each way to train one round; the tiles are unpacked before. Writes ``benchmarks/results/precheck.json``.
"""

import argparse
import os
import tempfile
import time
from pathlib import Path
from typing import Any

from common import RESULTS, describe_machine, write_results

import histo_mlflow
from histo_mlflow.console import format_table, say
from histo_mlflow.pipeline import precheck
from histo_mlflow.tiles.open import open_tiles

WAYS: dict[str, dict[str, Any]] = {
    "head of lite0, 224 px": {"backbone": "lite0", "trainable": "head", "image_size": 224, "augment": "none"},
    "lite0, all layers, 96 px, 20 epochs": {"backbone": "lite0", "image_size": 96},
}


def main() -> None:
    """Measure, print a table and write the figures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--data", required=True, help="tiles to learn from")
    parser.add_argument("--output", type=Path, default=RESULTS / "precheck.json", help="the JSON file")
    options = parser.parse_args()
    data, output = str(Path(options.data).resolve()), options.output.resolve()
    taken: list[float] = []
    checked = precheck.check_tiles

    def timed(*given: Any, **named: Any) -> Any:
        begun = time.perf_counter()
        found = checked(*given, **named)
        taken.append(time.perf_counter() - begun)
        return found

    precheck.check_tiles = timed  # type: ignore[attr-defined]
    rows, facts = [], {}
    for way, asked in WAYS.items():
        with tempfile.TemporaryDirectory() as folder:
            os.chdir(folder)
            os.environ["HISTO_CACHE_DIR"] = f"{folder}/cache"
            n_tiles = len(open_tiles(data))
            begun = time.perf_counter()
            histo_mlflow.train(data=data, weights="imagenet", register=False, **asked)
            whole = time.perf_counter() - begun
            os.chdir("/")
        share = taken[-1] / whole
        facts[way] = {"n_tiles": n_tiles, "check_seconds": taken[-1], "train_seconds": whole, "share": share}
        rows.append([way, str(n_tiles), f"{taken[-1]:.2f}", f"{whole:.1f}", f"{100 * share:.2f} %"])
    write_results(output, {"machine": describe_machine("cpu"), "load": os.getloadavg()[0], "ways": facts})
    say(format_table(["training", "tiles", "audit (s)", "all (s)", "share"], rows))


if __name__ == "__main__":
    main()
