"""Fetch the pictures of VIST's validation stories and write its annotations in the original's short form.

    python evals/download_vist_images.py
    python evals/download_vist_images.py --data data/vist/sis --size 512 --threads 16

DATA (`sis`) holds `val.story-in-sequence.json` as released. Pictures go to DATA/val_images/<image id>.png with their
proportions, shrunk to --size (the original squashes them to 224 x 224; `--protocol paper` of generate.py and score.py
does so when they are read). Those that are there are kept, dead links are counted, and the same command tries them
again. Public addresses alone, with limits of time and size.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tqdm import tqdm

from evals.harness.items import read_json
from evals.harness.vist import FORMATTED, RELEASED, picture_path, read_frames
from gill.errors import DataError
from gill.files import write_text
from gill.flatland.writer import write_picture
from gill.retrieval import PictureFetcher
from gill.types import PictureSource
from scripts.command import carry_out


def main(words: list[str] | None = None) -> int:
    """Fetch what is missing; returns the exit status."""
    options = _parse(words)
    fetcher = PictureFetcher(allow_network=True)
    return carry_out("download_vist_images", lambda: download(options.data, options.size, options.threads, fetcher))


def download(folder: Path, size: int, num_threads: int, fetcher: PictureSource) -> str:
    """Write annotations and pictures and say what is missing.

    Raises:
        MissingFileError: no annotations there. DataError: annotations of another form.
    """
    frames = read_frames(folder)
    write_text(folder / FORMATTED, json.dumps({"annotations": _formatted(frames)}) + "\n")
    addresses = _addresses(folder / RELEASED)
    used = dict.fromkeys(frame.image_id for _, frame in frames)
    missing = [image for image in used if not picture_path(folder, image).is_file()]
    known = [image for image in missing if image in addresses]
    keep = partial(_keep, folder, size, fetcher, addresses)
    with ThreadPoolExecutor(num_threads) as pool:
        num_new = sum(tqdm(pool.map(keep, known), total=len(known), desc="pictures", unit=""))
    return (
        f"{folder}: {len(used)} pictures are used, {len(used) - len(missing)} were there, {num_new} are new, "
        f"{len(known) - num_new} have a dead link, {len(missing) - len(known)} have none"
    )


def _keep(folder: Path, size: int, fetcher: PictureSource, addresses: dict[str, str], image_id: str) -> bool:
    """Fetch one picture; returns whether it came."""
    try:
        picture = fetcher.fetch(addresses[image_id])
    except OSError:
        return False
    picture.thumbnail((size, size))
    write_picture(picture_path(folder, image_id), picture)
    return True


def _formatted(frames: list[tuple[str, Any]]) -> dict[str, list[dict[str, Any]]]:
    """The original's form, in the order of the file, and the album where it is known."""
    stories = defaultdict(list)
    for story, frame in frames:
        row = {"caption": frame.caption, "image_id": frame.image_id, "sequence_index": frame.order}
        stories[story].append({**row, "album_id": frame.album} if frame.album else row)
    return stories


def _addresses(path: Path) -> dict[str, str]:
    """Addresses by image id; some pictures have none."""
    content = read_json(path, "unpack VIST's story-in-sequence files there (--data)")
    try:
        return {str(image["id"]): image["url_o"] for image in content["images"] if image.get("url_o")}
    except (LookupError, TypeError, AttributeError) as error:
        raise DataError(f"{path} is not laid out as VIST's story-in-sequence files: {error!r}") from error


def _parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=Path("sis"), help="VIST's folder (default: sis)")
    parser.add_argument("--size", type=int, default=512, help="longer side in pixels (default: 512)")
    parser.add_argument("--threads", type=int, default=8, help="pictures fetched at a time (default: 8)")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
