"""Store what a diffusion model's text encoder makes of every caption: the conditioning targets, as the original did.

    python scripts/preprocess_sd_embeddings.py dataset/cc3m_val.tsv data/cc3m/validation/clip_embs \\
        --diffusion-model stable-diffusion-v1-5/stable-diffusion-v1-5

One `<image name>.npy` of shape (L, C) a row. With a diffusion model at hand, `main.py --diffusion-model` computes the
same on the fly for about one language model token a caption; a store of CC3M takes some 390 GB. A stopped run is
continued by the same command: files that are there are kept, and files appear whole or not at all. Started by torchrun,
each process writes its own rows: torchrun --nproc-per-node 8 scripts/preprocess_sd_embeddings.py ...
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gill._torchvision import define_missing_torchvision_ops

define_missing_torchvision_ops()

import torch
from tqdm import tqdm

from gill.backbones import (
    ConditioningEncoder,
    ConditioningTokenizer,
    load_conditioning_encoder,
    load_conditioning_tokenizer,
    tiny_conditioning_encoder,
    tiny_conditioning_tokenizer,
)
from gill.data import REPORT_NAME, BadSamples, CaptionTable, target_path
from gill.distributed import World, world_from_environment
from gill.files import write_array
from gill.models.gill import DEFAULT_DIFFUSION
from gill.training import find_table
from scripts.command import carry_out


def main(words: list[str] | None = None) -> int:
    """Write the missing targets; returns the exit status."""
    options = _parse(words)
    return carry_out("preprocess_sd_embeddings", lambda: _preprocess(options))


def _preprocess(options: argparse.Namespace) -> str:
    table = CaptionTable(find_table(options.captions))
    options.out.mkdir(parents=True, exist_ok=True)
    BadSamples(options.out / REPORT_NAME, len(table), options.max_bad_fraction).add_unusable(table.bad_rows)
    world = world_from_environment() or World()
    device = torch.device("cuda", world.local_rank) if torch.cuda.is_available() else torch.device("cpu")
    encoder, tokenizer = _load(options.diffusion_model, device)
    own = range(world.rank, len(table), world.size)
    missing = [index for index in own if not target_path(options.out, table.row(index)[1]).is_file()]
    for start in tqdm(
        range(0, len(missing), options.batch_size), desc="captions", unit="batch", disable=not world.is_main
    ):
        rows = [table.row(index) for index in missing[start : start + options.batch_size]]
        targets = encoder(tokenizer([caption for caption, _ in rows]).to(device)).float().cpu().numpy()
        for (_, name), target in zip(rows, targets, strict=True):
            write_array(target_path(options.out, name), target.astype(options.dtype))
    return f"{options.out}: {len(missing)} targets written"


def _load(name: str, device: torch.device) -> tuple[ConditioningEncoder, ConditioningTokenizer]:
    if name == "tiny":
        return tiny_conditioning_encoder().to(device), tiny_conditioning_tokenizer()
    dtype = torch.float16 if device.type == "cuda" else torch.float32  # half precision crawls on a CPU
    return load_conditioning_encoder(name, device, dtype), load_conditioning_tokenizer(name)


def _parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("captions", type=Path, help="caption file, header caption<TAB>image")
    parser.add_argument("out", type=Path, help="folder of the targets, <image-dir>/.../clip_embs")
    parser.add_argument("--diffusion-model", default=DEFAULT_DIFFUSION, help="as main.py's")
    parser.add_argument("--dtype", default="float16", choices=("float16", "float32"), help="of the stored numbers")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--max-bad-fraction", type=float, default=0.01)
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
