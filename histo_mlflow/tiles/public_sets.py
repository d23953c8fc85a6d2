"""Public sets of tiles: where their makers have put them, and what is known of them; another set is another entry."""

import csv
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from histo_mlflow.errors import DownloadError
from histo_mlflow.tiles.unpacking import unpack_zip

_CC_BY = "CC BY 4.0 (https://creativecommons.org/licenses/by/4.0/): give credit"
_KATHER_2019 = (
    "Kather JN, Krisam J, Charoentong P, et al. Predicting survival from colorectal cancer histology slides using deep "
    "learning: a retrospective multicenter study. PLoS Med 2019;16(1):e1002730. Data: doi:10.5281/zenodo.1214456"
)
_MEDMNIST = (
    "Yang J, Shi R, Wei D, et al. MedMNIST v2: a large-scale lightweight benchmark for 2D and 3D biomedical image "
    "classification. Sci Data 2023;10:41. Made of: doi:10.5281/zenodo.1214456"
)
_LC25000_ROWS, _LC25000_GROUPS = 25_000, 1_246  # as its makers say; of 1,250 originals some could not be told apart


@dataclass(frozen=True, kw_only=True)
class PublicSet:
    """A file that somebody has published.

    Attributes:
        what: It is, in some words.
        url: Its official address.
        size: How large it is, about.
        md5: The sum that its publisher gives, or empty if none is known.
        licence: Under which it may be used.
        citation: What to cite.
        place: Puts what a file holds into an empty folder: ``place(file, folder)``.
        options: What a training on it should be told.
    """

    what: str
    url: str
    size: str
    md5: str
    licence: str = _CC_BY
    citation: str
    place: Callable[[Path, Path], None]
    options: str = ""

    @property
    def file_name(self) -> str:
        """What the file is called."""
        return self.url.rpartition("/")[2]


def _place_file(file: Path, folder: Path) -> None:
    """Put the file itself there, without copying where that can be done."""
    try:
        os.link(file, folder / file.name)
    except OSError:  # another disk, or one without links
        shutil.copyfile(file, folder / file.name)


def _place_lc25000_groups(file: Path, folder: Path) -> None:
    """Write the table that ``groups=`` takes: the path of each tile below a folder of the five class folders, and its group."""
    with file.open(newline="", encoding="utf-8") as opened:
        try:
            rows = [(f"{row['label']}/{row['filename']}", row["group_id"]) for row in csv.DictReader(opened)]
        except (KeyError, csv.Error, UnicodeDecodeError):
            raise DownloadError(f"{file} is not the table of LC25000-clean; fetch it again") from None
    counts = len({path for path, _ in rows}), len({group for _, group in rows})
    if counts != (_LC25000_ROWS, _LC25000_GROUPS):
        raise DownloadError(
            f"{file} has {counts[0]} tiles in {counts[1]} groups, its makers speak of {_LC25000_ROWS} in {_LC25000_GROUPS}; "
            "fetch it again"
        )
    with (folder / "groups.csv").open("w", newline="", encoding="utf-8") as written:
        csv.writer(written).writerows([("path", "group"), *rows])


PUBLIC_SETS = {
    "nct-crc-he-100k": PublicSet(
        what="100,000 tiles of 224 px, nine tissues of the colon and rectum, colour-normalised (Macenko)",
        url="https://zenodo.org/records/1214456/files/NCT-CRC-HE-100K.zip",
        size="11.7 GB, unpacked 15 GB",
        md5="6fd702d11df6292bc054397ae038a464",
        citation=_KATHER_2019,
        place=partial(unpack_zip, most_files=110_000, most_bytes=2 * 10**10),
        options="microns_per_pixel=0.5",
    ),
    "nct-crc-he-100k-nonorm": PublicSet(
        what="100,000 tiles of 224 px, nine tissues of the colon and rectum, as they were stained",
        url="https://zenodo.org/records/1214456/files/NCT-CRC-HE-100K-NONORM.zip",
        size="11.7 GB, unpacked 15 GB",
        md5="035777cf327776a71a05c95da6d6325f",
        citation=_KATHER_2019,
        place=partial(unpack_zip, most_files=110_000, most_bytes=2 * 10**10),
        options="microns_per_pixel=0.5",
    ),
    "crc-val-he-7k": PublicSet(
        what="7,180 tiles of 224 px of 50 other patients, the same nine tissues, colour-normalised",
        url="https://zenodo.org/records/1214456/files/CRC-VAL-HE-7K.zip",
        size="0.8 GB, unpacked 1.1 GB",
        md5="2fd1651b4f94ebd818ebf90ad2b6ce06",
        citation=_KATHER_2019,
        place=partial(unpack_zip, most_files=8_000, most_bytes=2 * 10**9),
        options="microns_per_pixel=0.5",
    ),
    "pathmnist": PublicSet(
        what="both sets above as 107,180 tiles of 28 px, in splits train, val and test",
        url="https://zenodo.org/records/10519652/files/pathmnist.npz",
        size="0.2 GB",
        md5="a8b06965200029087d5bd730944a56c1",
        citation=_MEDMNIST,
        place=_place_file,
        options="microns_per_pixel=4",
    ),
    "pathmnist-224": PublicSet(
        what="both sets above as 107,180 tiles of 224 px, in splits train, val and test",
        url="https://zenodo.org/records/10519652/files/pathmnist_224.npz",
        size="about 12 GB",
        md5="2c51a510bcdc9cf8ddb2af93af1eadec",
        citation=_MEDMNIST,
        place=_place_file,
        options="microns_per_pixel=0.5",
    ),
    "kather2016": PublicSet(
        what="5,000 tiles of 150 px, eight tissues of colorectal cancer",
        url="https://zenodo.org/records/53169/files/Kather_texture_2016_image_tiles_5000.zip",
        size="0.25 GB, unpacked 0.34 GB",
        md5="0ddbebfc56344752028fda72602aaade",
        citation="Kather JN, Weis CA, Bianconi F, et al. Multi-class texture analysis in colorectal cancer histology. "
        "Sci Rep 2016;6:27988. Data: doi:10.5281/zenodo.53169",
        place=partial(unpack_zip, most_files=6_000, most_bytes=10**9),
        options="microns_per_pixel=0.495",
    ),
    "lc25000-groups": PublicSet(
        what="which of the 25,000 tiles of LC25000 were made of the same original: a table, without the tiles",
        url="https://raw.githubusercontent.com/GeorgeBatch/LC25000-clean/912f342fe2a781e847f395d79982dad4d3d425ae/kaggle/"
        "lc25000_image_groups.csv",
        size="1.2 MB",
        md5="",  # the address names one revision; tiles and groups are counted
        citation="Batchkala G, Li B, Rittscher J. Evaluating histopathology foundation models for few-shot tissue clustering: "
        "an application to LC25000 augmented dataset cleaning. DEMI at MICCAI 2024. doi:10.1007/978-3-031-73748-0_2",
        place=_place_lc25000_groups,
    ),
}
