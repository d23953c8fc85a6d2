"""Fetch a public set of tiles from where its makers have put it."""

import shlex
from dataclasses import dataclass
from pathlib import Path

from histo_mlflow.errors import Interrupted, OptionError
from histo_mlflow.jobs import job
from histo_mlflow.options import JobOptions, option, stated
from histo_mlflow.pipeline.shown import Shown
from histo_mlflow.tiles.public_sets import PUBLIC_SETS


@dataclass(frozen=True, kw_only=True)
class Download(JobOptions):
    """Fetch a public set of tiles from where its makers have put it.

    NAME is one of the sets that `histo download` alone lists, with their sizes. Licence and citation are shown first. An
    interrupted download goes on when the same command is given again; what was fetched is compared with the published sum, and
    the folder appears when all is there.
    """

    name: str = option("none", f"The set: one of {', '.join(PUBLIC_SETS)}.", positional=True)
    output: str = option("none", "Folder to make; `none` is ./data/NAME.")
    from_file: str = option("none", "The file of the set, where it was fetched by other means; nothing is fetched then.")


@dataclass(frozen=True)
class DownloadResult(Shown):
    """What is there now.

    Attributes:
        folder: That was made.
        data: What to name as `data`; of a table of groups, as `groups`.
        licence: Under which it may be used.
        citation: What to cite.
    """

    folder: Path
    data: Path
    licence: str
    citation: str


@job("Keep", 4, example="histo download crc-val-he-7k", keeps=False)
def download(options: Download) -> DownloadResult:
    """Bring the set into a folder and return where it lies."""
    from histo_mlflow.console import say
    from histo_mlflow.tiles.downloads import download_set

    name = stated(options.name)
    if name not in PUBLIC_SETS:
        known = "\n".join(f"  {each}: {public.what} ({public.size})" for each, public in PUBLIC_SETS.items())
        say(f"Sets:\n{known}")
        raise OptionError(f"name={options.name}: name one of {', '.join(PUBLIC_SETS)}")
    asked = PUBLIC_SETS[name]
    output = Path(stated(options.output) or f"data/{name}").expanduser().absolute()
    given = stated(options.from_file)
    say(f"{name}: {asked.what}\nfrom: {asked.url} ({asked.size})\nlicence: {asked.licence}\ncite: {asked.citation}")
    if not asked.md5:
        say("no sum of this file is published: its size and what is in it are checked")
    try:
        data = download_set(asked, output, None if given is None else Path(given).expanduser().absolute())
    except Interrupted:
        say(f"what has arrived is kept in {output}.download; the same command goes on from there")
        raise
    given_as = ["data=FOLDER_OF_THE_TILES", f"groups={data}"] if data.suffix == ".csv" else [f"data={data}", asked.options]
    say(f"{data}\nnext: mlflow run . -e cv " + " ".join(f"-P {shlex.quote(each)}" for each in given_as if each))
    return DownloadResult(output, data, asked.licence, asked.citation)
