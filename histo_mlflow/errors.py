"""Every error that a user can meet, in two families that decide the exit code; knows nothing of the code that raises them.

A message is one line: what is wrong, where, and what to do about it.
"""


class _OneLineError(Exception):
    """Messages quote what files and options hold, and that may have line breaks."""

    def __str__(self) -> str:
        return " ".join(super().__str__().splitlines())


class RequestError(_OneLineError, ValueError):
    """The request can't be carried out as asked: wrong option, wrong data (exit code 2)."""


class OptionError(RequestError):
    """An option has a value that makes no sense."""


class TileFormatError(RequestError):
    """A file or folder does not hold tiles in a form that can be read."""


class AnnotationError(RequestError):
    """A file does not hold regions with classes in a form that can be read, or they are not of this slide."""


class SourceNotFoundError(RequestError, FileNotFoundError):
    """A file, folder, run or model that the request names does not exist."""


class WorkError(_OneLineError, RuntimeError):
    """The request was fine and the work on it failed (exit code 1)."""


class NonFiniteLossError(WorkError, ArithmeticError):
    """The training loss became NaN or infinite."""


class WeightsUnavailableError(WorkError, OSError):
    """Pretrained weights could not be fetched."""


class UnreadableTilesError(WorkError):
    """Some files of a folder could not be decoded; all others were dealt with."""


class UnreadableSlideError(WorkError):
    """A slide can't be opened, or a part of it can't be read."""


class TilesChangedError(WorkError):
    """The file that tiles are read from was changed while it was in use."""


class CacheError(WorkError, OSError):
    """Tiles can't be unpacked because the cache folder can't be written."""


class DownloadError(WorkError):
    """A file that lies elsewhere could not be fetched, or is not what it should be."""


class RankLostError(WorkError, ConnectionError):
    """Another process of a training on many devices is gone."""


class RankFailedError(WorkError):
    """Another process of a training on many devices has ended with an error, and has said so itself."""


class StoreError(WorkError):
    """The tracking store can't be reached or written."""


class Interrupted(BaseException):
    """SIGTERM or Ctrl-C arrived; a BaseException so that no ``except Exception`` swallows it."""
