"""Compute what the frozen vision tower says of every picture of a caption file, once, and store it.

    python scripts/extract_img_features.py dataset/cc3m_train.tsv data/cc3m/training data/features/training \\
        --visual-model openai/clip-vit-large-patch14

`main.py --image-features data/features` then trains without running the tower (`training/` and `validation/` inside).
The store is sharded, checksummed and read by memory map. A stopped run is continued by the same command; pictures that
cannot be read are left out, listed in bad_samples.jsonl beside the store, and end the run beyond --max-bad-fraction.
Started by torchrun, each process writes its own shards: torchrun --nproc-per-node 8 scripts/extract_img_features.py ...
"""

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gill._torchvision import define_missing_torchvision_ops

define_missing_torchvision_ops()

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from tqdm import tqdm

from gill.backbones import (
    ImageTransform,
    VisionTower,
    load_image_transform,
    load_vision_tower,
    tiny_image_transform,
    tiny_vision_tower,
)
from gill.data import (
    REPORT_NAME,
    BadSample,
    BadSamples,
    CaptionTable,
    FeatureWriter,
    StoreCard,
    find_image,
    open_image,
)
from gill.distributed import World, world_from_environment
from gill.errors import DataError
from gill.training import find_table
from scripts.command import carry_out


class Pictures(Dataset[tuple[str, Tensor] | BadSample]):
    """Pictures of a caption file by name, transformed for the tower."""

    def __init__(self, folder: Path, transform: ImageTransform, places: dict[str, tuple[str, int]]) -> None:
        self.folder, self.transform, self.places = folder, transform, places

    def __getitem__(self, name: str) -> tuple[str, Tensor] | BadSample:
        source, line = self.places[name]
        place = f"{source}:{line}"
        try:
            return name, self.transform(open_image(find_image(self.folder, name, place), place))
        except DataError as error:
            return BadSample(source, line, str(error))


def main(words: list[str] | None = None) -> int:
    """Fill the store; returns the exit status."""
    options = _parse(words)
    return carry_out("extract_img_features", lambda: _extract(options))


def _extract(options: argparse.Namespace) -> str:
    table = CaptionTable(find_table(options.captions))
    places = _places(table)
    world = world_from_environment() or World()
    device = torch.device("cuda", world.local_rank) if torch.cuda.is_available() else torch.device("cpu")
    tower, transform = _load_tower(options.visual_model, device)
    card = StoreCard(options.visual_model, tower.feature_width, options.dtype, options.shard_rows)
    writer = FeatureWriter(options.out, card)
    bad = BadSamples(options.out / REPORT_NAME, len(places), options.max_bad_fraction)
    pictures = Pictures(options.images, transform, places)
    num_stored = 0
    for number, asked in tqdm(
        writer.missing(list(places), world.rank, world.size), desc="shards", unit="shard", disable=not world.is_main
    ):
        names, features = [], []
        for batch, broken in _read(pictures, asked, options):
            bad.add(broken, num_tried=len(batch) + len(broken))
            if batch:
                names += [name for name, _ in batch]
                features.append(tower(torch.stack([pixels for _, pixels in batch]).to(device)).float().cpu().numpy())
        writer.write(number, asked, names, np.concatenate(features) if features else np.zeros((0, card.width)))
        num_stored += len(names)
    return f"{options.out}: {num_stored} new features, {len(bad)} bad pictures"


def _places(table: CaptionTable) -> dict[str, tuple[str, int]]:
    """File and line of each picture's first mention, in the file's order."""
    places: dict[str, tuple[str, int]] = {}
    for index in range(len(table)):
        places.setdefault(table.row(index)[1], (str(table.path), table.line(index)))
    return places


def _load_tower(name: str, device: torch.device) -> tuple[VisionTower, ImageTransform]:
    if name == "tiny":
        return tiny_vision_tower().to(device), tiny_image_transform()
    return load_vision_tower(name, device, torch.float32), load_image_transform(name)


def _read(
    pictures: Pictures, names: list[str], options: argparse.Namespace
) -> Iterator[tuple[list[tuple[str, Tensor]], list[BadSample]]]:
    loader = DataLoader(pictures, options.batch_size, sampler=names, num_workers=options.workers, collate_fn=list)
    for read in loader:
        bad = [item for item in read if isinstance(item, BadSample)]
        yield [item for item in read if not isinstance(item, BadSample)], bad


def _parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captions", type=Path, help="caption file, header caption<TAB>image")
    parser.add_argument("images", type=Path, help="folder of its pictures")
    parser.add_argument("out", type=Path, help="folder of the store, new or unfinished")
    parser.add_argument("--visual-model", default="openai/clip-vit-large-patch14", help="as main.py's")
    parser.add_argument("--dtype", default="float32", choices=("float32", "float16"), help="of the stored numbers")
    parser.add_argument("--shard-rows", type=int, default=16384, help="pictures a shard")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=0)
    parser.add_argument("--max-bad-fraction", type=float, default=0.01)
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
