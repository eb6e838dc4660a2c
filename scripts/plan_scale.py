"""Plan a training on paper: work, bytes and GPU hours for each language model, counted on shapes alone.

    python scripts/plan_scale.py                             # CC3M and 400 million pairs, a minute
    python scripts/plan_scale.py --models opt-6.7b --share 0.5

Work is counted by running a step of GILL on the meta device: every product of forward and backward pass, no weights.
Hours are that work / (peak x share): a plan, not a measurement.
"""

from __future__ import annotations

import argparse
import dataclasses
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gill._torchvision import define_missing_torchvision_ops

define_missing_torchvision_ops()

import torch

from gill.models.gill import GillTask
from gill.training import count_flops
from gill.types import Batch
from scripts.benchmarks.setting import FULL, Sizes, build_model
from scripts.command import carry_out

# Vendors' dense bfloat16 peaks, operations a second.
PEAKS = {"A100": 312e12, "H100": 989e12}
DATA = {"CC3M, the paper's 20,000 steps of 200": 4_000_000, "400 million pairs, once": 400_000_000}
# Pairs of a data set on disk; the size of a picture (256 pixels a side, JPEG) is an assumption.
PICTURES = {"CC3M": 3_100_000, "LAION-400M": 400_000_000}
BYTES_OF_JPEG, BYTES_OF_CAPTION = 20_000, 70
_TOKENS, _PAIRS = 13, 8  # a caption of CC3M has some 12 tokens; the count is proportional to the pairs


@dataclass(frozen=True)
class Plan:
    """One language model: numbers that are frozen and that train; operations of a pair, features stored or not."""

    num_frozen: int
    num_trained: int
    stored_flops: float
    pixel_flops: float


def main(words: list[str] | None = None) -> int:
    """Print the tables; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", nargs="+", choices=list(LANGUAGES), default=list(LANGUAGES))
    parser.add_argument("--share", type=float, default=0.4, help="of the peak that is assumed")
    options = parser.parse_args(words)
    return carry_out("plan_scale", lambda: tables({name: plan(name) for name in options.models}, options.share))


def opt(width: int, num_layers: int, num_heads: int) -> dict[str, int]:
    """An OPT as Zhang et al. 2022 (arXiv:2205.01068), Table 1, has it."""
    sizes = {"hidden_size": width, "word_embed_proj_dim": width, "ffn_dim": 4 * width}
    return {**sizes, "num_hidden_layers": num_layers, "num_attention_heads": num_heads}


LANGUAGES = {
    "opt-125m": opt(768, 12, 12),
    "opt-1.3b": opt(2048, 24, 32),
    "opt-6.7b": opt(4096, 32, 32),
    "opt-13b": opt(5120, 40, 40),
    "opt-30b": opt(7168, 48, 56),
}
# CLIP ViT-L/14
VISION = {
    "hidden_size": 1024,
    "intermediate_size": 4096,
    "num_hidden_layers": 24,
    "num_attention_heads": 16,
    "patch_size": 14,
}


def shapes(name: str) -> Sizes:
    """GILL around a language model of `LANGUAGES` and CLIP ViT-L/14, with the paper's mapper."""
    return dataclasses.replace(FULL, language=LANGUAGES[name], vision=VISION)


def plan(name: str) -> Plan:
    """Count a step of a language model's GILL, without weights; half of the batches are joined in pairs."""
    with torch.device("meta"):
        model = build_model(shapes(name))
    task, config = GillTask(model), model.config
    assert config.conditioning_length is not None and config.conditioning_width is not None
    ids = torch.arange(4, 4 + _PAIRS * _TOKENS).view(_PAIRS, _TOKENS)
    target = torch.empty(_PAIRS, config.conditioning_length, config.conditioning_width, device="meta")
    features = torch.empty(_PAIRS, VISION["hidden_size"], device="meta")
    pixels = torch.empty(_PAIRS, 3, 224, 224, device="meta")

    def flops_of_pair(images: torch.Tensor, is_paired: bool) -> float:
        lengths = torch.full((_PAIRS,), _TOKENS)
        batch = Batch(ids, lengths, images, conditioning_target=target, is_paired=is_paired)
        return count_flops(lambda: task(batch).total.backward()) / _PAIRS

    stored, read = ((flops_of_pair(images, False) + flops_of_pair(images, True)) / 2 for images in (features, pixels))
    numbers = [sum(p.numel() for p in task.parameters() if p.requires_grad is trains) for trains in (False, True)]
    return Plan(numbers[0], numbers[1], stored, read)


def tables(plans: Mapping[str, Plan], share: float) -> str:
    """Markdown: models, hours, bytes."""
    lines = [
        "| model | frozen, bf16 | what trains, with AdamW | TFLOP a pair, features stored | with the tower |",
        "|---|---|---|---|---|",
    ]
    for name, one in plans.items():
        sizes = f"{2 * one.num_frozen / 2**30:.1f} GiB | {16 * one.num_trained / 2**30:.2f} GiB"
        lines.append(f"| {name} | {sizes} | {one.stored_flops / 1e12:.3f} | {one.pixel_flops / 1e12:.3f} |")
    lines += [
        "",
        f"| GPU hours at {share:.0%} of the peak, features stored | " + " | ".join(PEAKS) + " |",
        "|---|" + "---|" * len(PEAKS),
    ]
    for data, count in DATA.items():
        for name, one in plans.items():
            hours = " | ".join(f"{one.stored_flops * count / peak / share / 3600:,.0f}" for peak in PEAKS.values())
            lines.append(f"| {data}: {name} | {hours} |")
    lines += [
        "",
        "| data | captions | pictures | features of ViT-L/14, fp16 | targets 77 x 768, fp16 |",
        "|---|---|---|---|---|",
    ]
    for name, count in PICTURES.items():
        each = (BYTES_OF_CAPTION, BYTES_OF_JPEG, 2 * 1024, 2 * 77 * 768)
        lines.append(f"| {name} | " + " | ".join(f"{count * size / 1e9:,.1f} GB" for size in each) + " |")
    return "\n".join(lines)


if __name__ == "__main__":
    sys.exit(main())
