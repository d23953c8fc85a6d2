"""Files that are there whole or not at all, whatever ends the process that writes them; knows nothing of what they hold."""

import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from histo_mlflow.base.plain_values import reason_of
from histo_mlflow.errors import WorkError


@contextmanager
def written_whole(path: Path, *, refusals: tuple[type[Exception], ...] = (OSError,)) -> Iterator[Path]:
    """Give the draft to write (a file, or a folder that the block makes), which takes the name `path` when the block has ended.

    What stood under that name stays until then, and stays if the block fails. A draft that a killed process has left is
    overwritten by the next one. `refusals` are what is raised for what the system refuses.

    Raises:
        WorkError: The disk is full, the folder can't be written, or another reason of the system's.
    """
    draft = path.with_name(f".{path.name}.draft")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        remove(draft)
        yield draft
        if draft.is_dir():  # no system replaces a folder that is not empty
            remove(path)
        draft.replace(path)
    except refusals as error:
        raise WorkError(f"can't write {path} ({reason_of(error)}); check disk space and permissions, then run again") from error
    finally:
        with suppress(OSError):
            remove(draft)


def remove(path: Path) -> None:
    """Remove a file, a link or a folder with all that is in it, if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
