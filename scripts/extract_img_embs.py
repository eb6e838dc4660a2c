"""Build the index that a trained model retrieves pictures from.

    python scripts/extract_img_embs.py photos/ my_index --model checkpoints/gill_flatland
    python scripts/extract_img_embs.py dataset/cc3m_val.tsv my_index --image-dir data/cc3m/validation --model MODEL
    python scripts/extract_img_embs.py addresses.txt my_index --fetch --workers 16 --model MODEL

SOURCE is one of
    a folder         every picture in it and below
    a .zip file      every picture in it; put it into the index's folder and the index carries its pictures
    a .tsv file      with the header caption<TAB>image; images are names below --image-dir, or addresses
    any other file   one name below --image-dir, or one address, a line

The index keeps the names as they are, below --image-dir; whoever searches it opens them with
PictureFetcher([image_dir]). Only the picture half of MODEL is loaded, so a machine that holds its CLIP will do. A run
that was stopped, at any moment, is continued by the same command. Pictures that cannot be read are left out, listed in
bad_samples.jsonl in the index's folder, and end the run beyond --max-bad-fraction. Each picture is embedded once,
however often SOURCE names it.
"""

import argparse
import sys
import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gill._torchvision import define_missing_torchvision_ops

define_missing_torchvision_ops()

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from gill.backbones import ImageTransform
from gill.data import IMAGE_EXTENSIONS, REPORT_NAME, BadSample, BadSamples, CaptionTable, find_image
from gill.errors import DataError, FetchError, MissingFileError
from gill.models.gill.image_embedder import ImageEmbedder, load_image_embedder
from gill.retrieval import DTYPES, FetchLimits, IndexCard, IndexWriter, PictureFetcher, RetrievalIndex, is_storable
from scripts.command import carry_out

Places = dict[str, tuple[str, int]]  # name or address of each picture -> file and line (0 = none) that name it first


@dataclass(frozen=True)
class Listing:
    """The pictures of a source: each once, in its order; the folder their names start from; rows that name none."""

    places: Places
    root: Path
    bad_rows: Sequence[BadSample] = ()


class Pictures(Dataset[tuple[str, Tensor] | BadSample]):
    """Pictures by name or address, transformed for the tower."""

    def __init__(self, listing: Listing, fetcher: PictureFetcher, transform: ImageTransform) -> None:
        self.root, self.places = listing.root, listing.places
        self.fetcher, self.transform = fetcher, transform

    def __getitem__(self, name: str) -> tuple[str, Tensor] | BadSample:
        file, line = self.places[name]
        place = f"{file}:{line}" if line else file
        try:
            source = self._source(name, place)
            if not is_storable(source):
                return BadSample(file, line, f"{place!r}: its name is too long, or no text")
            return source, self.transform(self.fetcher.fetch(source))
        except FetchError as error:
            return BadSample(file, line, f"{place}: {error}")
        except DataError as error:
            return BadSample(file, line, str(error))

    def _source(self, name: str, place: str) -> str:
        """What the index keeps: the name with the extension that caption files may leave out."""
        if is_address(name) or ".zip/" in name:
            return name
        return name + find_image(self.root, name, place).name[len(Path(name).name) :]


def main(words: list[str] | None = None) -> int:
    """Build the index; returns the exit status."""
    options = _parse(words)
    return carry_out("extract_img_embs", lambda: _build(options))


def _build(options: argparse.Namespace) -> str:
    index, num_bad = build(options)
    return f"{options.out}: {index.num_images} pictures, {num_bad} bad ones left out"


def build(options: argparse.Namespace) -> tuple[RetrievalIndex, int]:
    """The finished index, and how many pictures this run left out.

    Raises:
        GillError: no model, no pictures, too many bad ones.
    """
    listing = find_pictures(options.source, options.image_dir)
    places = listing.places
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    embedder, transform = load_image_embedder(options.model, device)
    writer = IndexWriter(
        options.out, IndexCard(embedder.width, options.dtype, embedder.fingerprint), options.shard_rows
    )
    fetcher = PictureFetcher([listing.root], options.fetch, FetchLimits(seconds=options.timeout))
    pictures = Pictures(listing, fetcher, transform)
    bad = BadSamples(options.out / REPORT_NAME, len(places), options.max_bad_fraction)
    bad.add_unusable(listing.bad_rows)
    missing = writer.missing(list(places))
    num_missing = sum(len(asked) for _, asked in missing)
    with tqdm(total=len(places), initial=len(places) - num_missing, unit="picture", smoothing=0.01) as progress:
        for number, asked in missing:
            writer.write(number, asked, *embed(embedder, pictures, asked, bad, options, progress))
    writer.finish(len(places))
    return RetrievalIndex(options.out), len(bad)


def embed(
    embedder: ImageEmbedder,
    pictures: Pictures,
    names: list[str],
    bad: BadSamples,
    options: argparse.Namespace,
    progress: tqdm,
) -> tuple[list[str], np.ndarray]:
    """Sources and float32[pictures, E] rows of those that can be read; the others are reported.

    Raises:
        DataError: too many cannot be read.
    """
    sources: list[str] = []
    rows = [np.zeros((0, embedder.width), np.float32)]
    for batch in DataLoader(pictures, options.batch_size, sampler=names, num_workers=options.workers, collate_fn=list):
        read = [item for item in batch if not isinstance(item, BadSample)]
        bad.add((item for item in batch if isinstance(item, BadSample)), num_tried=len(batch))
        if read:
            sources += [source for source, _ in read]
            rows.append(embedder(torch.stack([pixels for _, pixels in read])).float().cpu().numpy())
        progress.update(len(batch))
    return sources, np.concatenate(rows)


def find_pictures(source: Path, image_dir: Path | None) -> Listing:
    """The pictures `source` names.

    Raises:
        MissingFileError: no such file or folder; DataError: it names no picture, or is damaged.
    """
    if not source.exists():
        raise MissingFileError(f"{source} is missing; wanted a folder, a .zip, a .tsv or a list of pictures")
    if source.is_dir():
        names = sorted(path.relative_to(source).as_posix() for path in source.rglob("*") if path.is_file())
        listing = Listing({name: (str(source / name), 0) for name in names if is_picture(name)}, source)
    elif source.suffix == ".zip":
        names = sorted(name for name in _members(source) if is_picture(name))
        listing = Listing({f"{source.name}/{name}": (f"{source}/{name}", 0) for name in names}, source.parent)
    elif source.suffix == ".tsv":
        table = CaptionTable(source)
        named = [(table.line(row), table.row(row)[1]) for row in range(len(table))]
        listing = Listing(_first_mentions(source, named), image_dir or source.parent, table.bad_rows)
    else:
        listing = Listing(_first_mentions(source, _lines(source)), image_dir or source.parent)
    if not listing.places:
        raise DataError(f"{source} names no picture; wanted {', '.join(IMAGE_EXTENSIONS)} files or addresses")
    return listing


def is_picture(name: str) -> bool:
    """Whether a file's name is one of a picture."""
    return name.lower().endswith(IMAGE_EXTENSIONS)


def is_address(name: str) -> bool:
    """Whether a name is an address of the web."""
    return name.lower().startswith(("http://", "https://"))


def _members(path: Path) -> list[str]:
    try:
        with zipfile.ZipFile(path) as packed:
            return packed.namelist()
    except (zipfile.BadZipFile, OSError) as error:
        raise DataError(f"{path} is no .zip file that can be read ({error})") from error


def _first_mentions(source: Path, named: list[tuple[int, str]]) -> Places:
    places: Places = {}
    for line, name in named:
        places.setdefault(name, (str(source), line))
    return places


def _lines(path: Path) -> list[tuple[int, str]]:
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except UnicodeDecodeError as error:
        raise DataError(f"{path} is no list of pictures: it is not UTF-8 text ({error.reason})") from error
    return [(number, line.strip()) for number, line in enumerate(lines, start=1) if line.strip()]


def _parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("source", type=Path, metavar="SOURCE", help="folder, .zip, .tsv or list of pictures")
    parser.add_argument("out", type=Path, metavar="INDEX", help="folder of the index, new or unfinished")
    parser.add_argument("--model", type=Path, required=True, help="trained model: a run, a saved or a released folder")
    parser.add_argument("--image-dir", type=Path, help="where names start (default: the folder SOURCE is in)")
    parser.add_argument("--fetch", action="store_true", help="fetch addresses from the public web")
    parser.add_argument("--timeout", type=float, default=10.0, help="seconds a download may take (default: 10)")
    parser.add_argument("--dtype", default="float32", choices=DTYPES, help="float16 halves the files, searches slower")
    parser.add_argument("--shard-rows", type=int, default=16384, help="pictures a shard: what a stop can cost at most")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=0, help="processes that read pictures (default: this one)")
    parser.add_argument("--max-bad-fraction", type=float, default=0.05, help="end the run beyond (default: 0.05)")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
