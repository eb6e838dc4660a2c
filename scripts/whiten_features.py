"""Measure how stored image features spread, and write the matrix that makes all their directions equally long.

    python scripts/extract_img_features.py CAPTIONS.tsv IMAGES features --visual-model openai/clip-vit-large-patch14
    python scripts/whiten_features.py features whitening.safetensors
    python main.py ... --set whitening=whitening.safetensors

A map that learns by gradient learns last what features say in their short directions, such as which colour belongs to
which shape. Multiplied by W = (M + e l I)^(-1/2), with M the mean of f f^T over all pictures, l its largest eigenvalue,
and e = 0.001, features are as long one way as any other, and the map after them is still linear.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gill._torchvision import define_missing_torchvision_ops

define_missing_torchvision_ops()

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from gill.data import FeatureStore
from gill.files import write_whole
from gill.models.gill import WHITENING_NAME
from scripts.command import carry_out

FLOOR = 1e-3  # of the largest eigenvalue: directions shorter than this are noise and stay short


def main(words: list[str] | None = None) -> int:
    """Write the matrix; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("features", type=Path, help="folder that extract_img_features.py filled")
    parser.add_argument("out", type=Path, metavar="OUT.safetensors")
    options = parser.parse_args(words)
    return carry_out("whiten_features", lambda: _write(options.features, options.out))


def _write(features: Path, out: Path) -> str:
    store = FeatureStore(features)
    width = store.card.width
    total = np.zeros((width, width))
    for rows in store.shards():
        exact = rows.astype(np.float64)
        total += exact.T @ exact
    whitening = whiten(torch.from_numpy(total / len(store)))
    out.parent.mkdir(parents=True, exist_ok=True)
    write_whole(out, lambda unfinished: save_file({WHITENING_NAME: whitening.float().contiguous()}, unfinished))
    return f"{out}: {width} x {width}, from {len(store)} pictures"


def whiten(moment_FF: Tensor) -> Tensor:
    """float[F, F] symmetric W of the second moment of features."""
    lengths, directions = torch.linalg.eigh(moment_FF)
    scale = (lengths.clamp(min=0) + FLOOR * lengths.max()).rsqrt()
    return (directions * scale) @ directions.T


if __name__ == "__main__":
    sys.exit(main())
