"""What a slide takes in memory does not follow its area."""

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.conftest import PROJECT
from tests.slide_writers import draw_picture, write_generic

MOST_MORE_MIB = 80
"""Of nine times the area, a fifth of what the area itself would take."""


@pytest.mark.slow
def test_nine_times_the_area_takes_no_more_memory(tmp_path: Path) -> None:
    """In pieces of 2,048 px, each way: 604 and 5,436 million pixels, each in a process of its own."""
    slide = write_generic(tmp_path / "slide.tif", draw_picture(2048, 2048), 0.25)
    script = PROJECT / "benchmarks" / "slide_memory.py"
    command = [sys.executable, str(script), str(slide), "--repeats", "12", "36", "--output", str(tmp_path / "memory.json")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    small, large = json.loads((tmp_path / "memory.json").read_text())["slides"]
    assert large["megapixels"] > 8.9 * small["megapixels"]
    assert large["n_tiles"] > 8 * small["n_tiles"]
    assert large["all_mib"] < small["all_mib"] + MOST_MORE_MIB
