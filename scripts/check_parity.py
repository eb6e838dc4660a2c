"""Compare this implementation with recorded outputs of the original GILL or FROMAGe.

    python scripts/check_parity.py tests/parity/gill --seed 11
    python scripts/check_parity.py tests/parity/fromage --seed 31

Prints each recorded quantity with its relative error and exits 0 only if all are within 1e-4. The error of an array is
||ours - theirs|| / ||theirs||, but no less than its largest single error over its root mean square (outputs) or over
the entry itself (gradient norms); labels, names and ids must be equal. Gradients where float32 rounding decides on
which side of zero a ReLU falls are compared on both sides (scripts/parity/kinks.py). The folder holds meta.json,
golden.npz and both backbones; the trained tensors follow from the seed. Nothing in the folder is executed.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from functools import partial
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gill._torchvision import define_missing_torchvision_ops

define_missing_torchvision_ops()

import numpy as np
import transformers

from gill.errors import GillError
from scripts.parity.decoding import contract, decoding_quantities
from scripts.parity.folder import ParityFolder, open_folder
from scripts.parity.kinks import explain
from scripts.parity.training import gradient_quantities, training_quantities

TOLERANCE = 1e-4
_INPUTS = ("images", "tokens", "caption_len", "clip_emb")
_NO_CONTRACT = (".text", ".factor")  # decoded text and the settings of a run are not outputs to match


def main(arguments: list[str] | None = None) -> int:
    """Check one folder; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path, help="folder with meta.json, golden.npz and the two backbones")
    parser.add_argument("--seed", type=int, required=True, help="seed of the trained tensors")
    options = parser.parse_args(arguments)
    transformers.utils.logging.disable_progress_bar()
    try:
        errors = dict(relative_errors(open_folder(options.folder, options.seed)))
    except GillError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    wrong = [key for key, size in errors.items() if not size <= TOLERANCE]
    for key, size in errors.items():
        print(f"{'FAIL' if key in wrong else 'ok  '} {size:9.2e}  {key}")
    print(f"{len(errors) - len(wrong)} of {len(errors)} quantities within {TOLERANCE:g}")
    if wrong:
        print(f"outside: {', '.join(wrong)}")
    return int(bool(wrong))


def relative_errors(parity: ParityFolder) -> Iterator[tuple[str, float]]:
    """(key, error) of every recorded quantity; what we cannot compute is infinitely wrong."""
    errors = {key: _error(parity, key, value) for key, value in training_quantities(parity)}
    for is_paired in (False, True):
        found, nudged = explain(parity.model, partial(_gradient_errors, parity, is_paired), TOLERANCE)
        errors |= found
        for unit in nudged:
            print(f"note: {unit.layer} unit {unit.place} is {unit.value:.0e}, taken on the other side of zero")
    errors |= {key: _error(parity, key, value) for key, value in decoding_quantities(parity)}
    errors["pixel_values"] = _error(parity, "pixel_values", parity.pixel_values().numpy())
    for key in parity.golden:
        if key not in _INPUTS and not key.endswith(_NO_CONTRACT):
            yield key, errors.get(key, float("inf"))


def _gradient_errors(parity: ParityFolder, is_paired: bool) -> dict[str, float]:
    return {key: _error(parity, key, value) for key, value in gradient_quantities(parity, is_paired)}


def _error(parity: ParityFolder, key: str, value: object) -> float:
    if key not in parity.golden:
        return float("inf")
    ours, theirs = np.asarray(value), parity.golden[key]
    if key.endswith("gradnorm.names"):
        return _difference(np.array_equal(ours, np.sort(theirs)))
    if key.endswith(".ids"):
        end_id = parity.tokenizer.eos_id
        first, second = (contract(ids[0].tolist(), parity.model, end_id) for ids in (ours, theirs))
        return _difference(first == second)
    if ours.shape != theirs.shape:
        return float("inf")
    if key.endswith(".labels"):
        return _difference(np.array_equal(ours, theirs))
    return _distance(key, ours.astype(np.float64), theirs.astype(np.float64))


def _distance(key: str, ours: np.ndarray, theirs: np.ndarray) -> float:
    difference, size = np.linalg.norm(ours - theirs), np.linalg.norm(theirs)
    if not size:
        return _difference(difference == 0)
    if key.endswith("gradnorm.values"):
        return float((np.abs(ours - theirs) / theirs).max())
    is_gradient = ".grad." in key
    largest = 0.0 if is_gradient else np.abs(ours - theirs).max() / (size / np.sqrt(theirs.size))
    return float(max(difference / size, largest))


def _difference(is_equal: bool) -> float:
    return 0.0 if is_equal else float("inf")


if __name__ == "__main__":
    sys.exit(main())
