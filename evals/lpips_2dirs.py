"""LPIPS between the pictures of two folders, as the original script does.

    python evals/lpips_2dirs.py -d0 sis/val_images -d1 gill_vist_outputs -o vist_lpips.txt --use_gpu
    python evals/lpips_2dirs.py -d0 data/flatland/sis/val_images -d1 runs/vist -o vist_lpips.txt \\
        --network checkpoints/flatland/clip

Folder 1 may be a run of `evals/generate.py`, whose answers are compared with their own true pictures, squashed where
its protocol has it so; others pair by file name, or by the number a name ends in
(`VisualDialog_val2018_000000185565.jpg` and `000000185565.png`). Pictures are resized to 256 x 256. Both folders must
share a picture; the original writes the mean of nothing.
"""

from __future__ import annotations

import argparse
import re
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gill._torchvision import define_missing_torchvision_ops

define_missing_torchvision_ops()

import torch
from PIL import Image
from tqdm import tqdm

from evals.harness.items import SQUASHED
from evals.harness.measures import is_squashed
from evals.harness.perceptual import ALEXNET, distances, load_maps
from evals.harness.runs import OUTPUTS, read_run
from gill.data import IMAGE_EXTENSIONS, open_image
from gill.errors import DataError, MissingFileError
from gill.files import write_text
from gill.metrics import estimate_mean
from scripts.command import carry_out

AT_ONCE = 16
Pair = tuple[str, Path, Path]


def main(words: list[str] | None = None) -> int:
    """Compare and write; returns the exit status."""
    options = _parse(words)
    return carry_out("lpips_2dirs", lambda: _compare(options))


def _compare(options: argparse.Namespace) -> str:
    pairs = pairs_of(options.dir0, options.dir1)
    maps = load_maps(options.network, "cuda" if options.use_gpu else "cpu")
    size = SQUASHED if _is_run(options.dir1) and is_squashed(read_run(options.dir1)) else None
    found: list[tuple[str, Path, float]] = []
    num_bad = 0
    for start in tqdm(range(0, len(pairs), AT_ONCE), desc="LPIPS", unit="batch"):
        opened = []
        for name, left, right in pairs[start : start + AT_ONCE]:
            try:
                opened.append((name, left, _open_true(left, size), open_image(right, "lpips")))
            except DataError:
                num_bad += 1
        if opened:
            names, paths, lefts, rights = zip(*opened, strict=True)
            found += zip(names, paths, distances(maps, lefts, rights).tolist(), strict=True)
    if not found:
        raise DataError(f"none of the {len(pairs)} pairs can be read; copy the pictures again")
    values = torch.tensor([distance for _, _, distance in found])
    estimate = estimate_mean(values, clusters=[left for _, left, _ in found], is_share=False)
    lines = [*(f"{name}: {distance:.6f}" for name, _, distance in found), f"Average: {estimate.mean}"]
    write_text(options.out, "\n".join(lines))
    interval = f"95 % {estimate.low:.4f} to {estimate.high:.4f}, n = {len(found)}, {num_bad} unreadable"
    return f"LPIPS ({options.network}): {estimate.mean:.4f} ({interval}); {options.out}"


def pairs_of(dir0: Path, dir1: Path) -> list[Pair]:
    """(name, true picture, picture to compare) of what both folders have.

    Raises:
        MissingFileError: they share nothing.
    """
    pairs = _pairs_of_run(dir0, dir1) if _is_run(dir1) else _pairs_by_name(dir0, dir1)
    if not pairs:
        raise MissingFileError(f"{dir0} and {dir1} share no picture, neither by name nor by the number a name ends in")
    return pairs


def _open_true(path: Path, size: tuple[int, int] | None) -> Image.Image:
    picture = open_image(path, "lpips")
    return picture if size is None else picture.resize(size)


def _is_run(folder: Path) -> bool:
    return (folder / OUTPUTS).is_file()


def _pairs_of_run(dir0: Path, dir1: Path) -> list[Pair]:
    lines = read_run(dir1).answered
    pairs = [(line["id"], dir0 / Path(line["truth"]).name, dir1 / line["output"]) for line in lines]
    return [pair for pair in pairs if pair[1].is_file()]


def _pairs_by_name(dir0: Path, dir1: Path) -> list[Pair]:
    left, right = (
        sorted(path for path in folder.glob("*") if path.suffix.lower() in IMAGE_EXTENSIONS) for folder in (dir0, dir1)
    )
    by_name, by_number = {path.name: path for path in right}, {_number(path): path for path in right}
    pairs = []
    for path in left:
        other = by_name.get(path.name) or (by_number.get(_number(path)) if _number(path) else None)
        if other is not None:
            pairs.append((path.name, path, other))
    return pairs


def _number(path: Path) -> str:
    """The digits a name ends in, without leading zeros."""
    found = re.search(r"\d+$", path.stem)
    return found[0].lstrip("0") or "0" if found else ""


def _parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-d0", "--dir0", type=Path, required=True, help="folder of the true pictures")
    parser.add_argument("-d1", "--dir1", type=Path, required=True, help="folder or run to compare with them")
    parser.add_argument("-o", "--out", type=Path, default=Path("lpips.txt"), help="default: lpips.txt")
    parser.add_argument("-v", "--version", choices=["0.1"], default="0.1", help="of the learned weights")
    parser.add_argument("--use_gpu", action="store_true")
    parser.add_argument("--network", default=ALEXNET, help="alex, or folder or hub name of a CLIP (default: alex)")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
