"""Draw a gallery of Flatland pictures into one .zip file, for an index that carries its pictures.

    python scripts/make_flatland_gallery.py checkpoints/gill_flatland/index/pictures.zip --size 512
    python scripts/extract_img_embs.py checkpoints/gill_flatland/index/pictures.zip checkpoints/gill_flatland/index \\
        --model checkpoints/gill_flatland

Picture number i, `0000i.png`, shows `distinct_scenes(split, size, seed)[i]`: any two differ in what a caption can say.
`captions.json` beside the pictures has a caption of each. The same settings give the same bytes.
"""

import argparse
import io
import json
import sys
import zipfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from PIL import Image
from tqdm import tqdm

from gill.files import write_whole
from gill.flatland import Scene, caption, distinct_scenes, draw
from scripts.command import carry_out

GALLERY_NAME, CAPTIONS_NAME = "pictures.zip", "captions.json"  # as an index names the file, and inside it
_LONG_AGO = (1980, 1, 1, 0, 0, 0)  # the earliest time of the format; the hour of the build is no part of a gallery


def main(words: list[str] | None = None) -> int:
    """Draw the gallery; returns the exit status."""
    options = _parse(words)
    return carry_out("make_flatland_gallery", lambda: _make(options))


def _make(options: argparse.Namespace) -> str:
    num_bytes = make_gallery(options.out, options.split, options.size, options.seed)
    return f"{options.out}: {options.size} pictures, {num_bytes} bytes"


def make_gallery(out: Path, split: str, size: int, seed: int) -> int:
    """Write the file, whole or not at all; returns its bytes.

    Raises:
        ConfigError: an unknown split, or one with fewer distinct scenes.
    """
    gallery = distinct_scenes(split, size, seed)
    write_whole(out, lambda unfinished: _pack(unfinished, gallery))
    return out.stat().st_size


def _pack(path: Path, gallery: Sequence[Scene]) -> None:
    with zipfile.ZipFile(path, "w") as packed:  # stored as they are: PNG is packed already
        for number, scene in enumerate(tqdm(gallery, desc="pictures", unit="")):
            packed.writestr(zipfile.ZipInfo(f"{number:05d}.png", _LONG_AGO), _png(draw(scene)))
        captions = {f"{number:05d}.png": caption(scene) for number, scene in enumerate(gallery)}
        listing = zipfile.ZipInfo(CAPTIONS_NAME, _LONG_AGO)
        packed.writestr(listing, json.dumps(captions, indent=0), compress_type=zipfile.ZIP_DEFLATED)


def _png(picture: Image.Image) -> bytes:
    buffer = io.BytesIO()
    picture.save(buffer, "PNG", optimize=True)
    return buffer.getvalue()


def _parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="FILE.zip")
    parser.add_argument("--size", type=int, default=512, help="pictures (default: 512)")
    parser.add_argument("--split", default="test", help="train, val, test or novel (default: test)")
    parser.add_argument("--seed", type=int, default=0, help="of the world (default: 0)")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
