"""What is said in the terminal while work goes on; plain lines, so that a log reads the same."""

import logging
import sys
from collections.abc import Collection, Mapping, Sequence

from tqdm import tqdm

from histo_mlflow.base.escaping import visible, visible_lines
from histo_mlflow.base.secrets import hide_secrets
from histo_mlflow.process import is_first_process


def say(text: str) -> None:
    """Print lines to standard output without tearing a progress bar."""
    if not is_first_process():
        return
    tqdm.write(visible_lines(hide_secrets(text)))
    sys.stdout.flush()  # a log should not lag behind


def warn(text: str) -> None:
    """Print a line that the user should not miss, to standard error."""
    if not is_first_process():
        return
    line = visible(hide_secrets(f"Warning: {text}"))
    tqdm.write(f"\033[33m{line}\033[0m" if sys.stderr.isatty() else line, file=sys.stderr)


class _ToTerminal(logging.Handler):
    def emit(self, record: logging.LogRecord) -> None:
        (warn if record.levelno >= logging.WARNING else say)(record.getMessage())


def show_log() -> None:
    """Say what modules below the jobs log, which know of no terminal."""
    log = logging.getLogger("histo_mlflow")
    log.handlers = [_ToTerminal()]
    log.propagate = False  # a library that sets the root logger up, as W&B does, would have each line said twice


def describe_epoch(epoch: int, epochs: int, metrics: Mapping[str, float], *, is_best: bool, left: str = "") -> str:
    """Return one line on an epoch, or on one of several heads; `left` says how long it will take yet."""
    splits = " | ".join(
        f"{split} loss {metrics[f'{split}/loss']:.4f} acc {metrics[f'{split}/accuracy']:.4f}"
        for split in ("train", "val", "test")
        if f"{split}/loss" in metrics
    )
    width = len(str(epochs))
    name, best = f"epoch {epoch:{width}d}/{epochs}", "best so far"
    if "head/C" in metrics:  # all heads are there when the first is told of
        name, best = f"C={metrics['head/C']:<8.3g}", "chosen"
    speed = f" | {metrics['train/tiles_per_second']:.0f} tiles/s" if "train/tiles_per_second" in metrics else ""
    return " | ".join(part for part in (name, splits + speed, left, best if is_best else "") if part)


def format_table(header: Sequence[str], rows: Sequence[Sequence[str]], *, words: Collection[str] = ()) -> str:
    """Return rows as aligned columns: the first and those that hold `words` to the left, the others to the right."""
    table = [[visible(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[k]) for row in table) for k in range(len(header))]
    left = {0} | {k for k, name in enumerate(header) if name in words}
    lines = []
    for row in table:
        cells = [
            cell.ljust(width) if k in left else cell.rjust(width)
            for k, (cell, width) in enumerate(zip(row, widths, strict=True))
        ]
        lines.append("  ".join(cells).rstrip())
    lines.insert(1, "  ".join("-" * width for width in widths))
    return "\n".join(lines)
