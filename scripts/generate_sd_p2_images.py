"""Draw a picture of every prompt with the frozen diffusion model alone, for voters or scores to compare with.

    python scripts/generate_sd_p2_images.py PartiPromptsDecisionsConfident.tsv runs/p2_images
    python scripts/generate_sd_p2_images.py data/flatland/data/PartiPromptsAllDecisions.tsv runs/p2_flatland \\
        --diffusion-model checkpoints/flatland/diffusion

Picture K of row N (both from 0) is `NNNNN-K.png`, drawn from seed SEED + 1000 N + K, so any of them can be drawn again
alone. Where the safety checker withholds one, an empty `NNNNN-K.withheld` stands in its place. A stopped run is
continued by the same command: what is there is kept. `drawing.json` says how all were drawn, and another way of drawing
wants another folder.
"""

import argparse
import hashlib
import json
import sys
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gill._torchvision import define_missing_torchvision_ops

define_missing_torchvision_ops()

import torch
from tqdm import tqdm

from gill.backbones import SCHEDULERS, DiffusionDrawer, load_drawer, tiny_drawer
from gill.errors import ConfigError, DataError
from gill.files import write_json
from gill.flatland.writer import write_picture
from gill.models.gill import DEFAULT_DIFFUSION
from scripts.command import carry_out
from scripts.decision.votes import Row, read_rows

MANIFEST = "drawing.json"
SEEDS_A_ROW = 1000


@dataclass(frozen=True)
class Wanted:
    """One picture to draw."""

    prompt: str
    seed: int
    path: Path

    @property
    def withheld(self) -> Path:
        """Stands for a picture that the safety checker withheld."""
        return self.path.with_suffix(".withheld")

    @property
    def is_done(self) -> bool:
        """Whether an earlier run has dealt with it."""
        return self.path.is_file() or self.withheld.is_file()


def main(words: list[str] | None = None) -> int:
    """Draw what is missing; returns the exit status."""
    options = _parse(words)
    return carry_out("generate_sd_p2_images", lambda: _generate(options))


def _generate(options: argparse.Namespace) -> str:
    if not 1 <= options.num_images <= SEEDS_A_ROW:
        raise ConfigError(f"--num-images must lie in 1 to {SEEDS_A_ROW}, got {options.num_images}")
    rows = read_rows(options.prompts)
    _claim(options, rows)
    wanted = [each for number, row in enumerate(rows) for each in _pictures(options, number, row)]
    missing = [each for each in wanted if not each.is_done]
    if missing:
        _draw(missing, _load(options), options)
    num_withheld = sum(each.withheld.is_file() for each in wanted)
    note = f"; the safety checker withheld {num_withheld}" if num_withheld else ""
    return f"{options.out}: {len(missing)} of {len(wanted)} pictures were missing, none is now{note}"


def _pictures(options: argparse.Namespace, number: int, row: Row) -> list[Wanted]:
    first_seed = options.seed + SEEDS_A_ROW * number
    return [
        Wanted(row.prompt, first_seed + copy, options.out / f"{number:05d}-{copy}.png")
        for copy in range(options.num_images)
    ]


def _draw(missing: list[Wanted], drawer: DiffusionDrawer, options: argparse.Namespace) -> None:
    at_once = drawer.pictures_at_once
    with tqdm(total=len(missing), desc="pictures", unit="") as bar:
        for start in range(0, len(missing), at_once):
            part = missing[start : start + at_once]
            sequences = drawer.encode([each.prompt for each in part])
            seeds = [each.seed for each in part]
            for each, image in zip(
                part, drawer.draw(sequences, seeds, options.steps, options.guidance_scale), strict=True
            ):
                each.withheld.touch() if image is None else write_picture(each.path, image)
            bar.update(len(part))


def _claim(options: argparse.Namespace, rows: list[Row]) -> None:
    prompts = "\n".join(row.prompt for row in rows)
    manifest = {
        "diffusion_model": options.diffusion_model,
        "scheduler": options.scheduler,
        "steps": options.steps,
        "guidance_scale": options.guidance_scale,
        "seed": options.seed,
        "prompts_sha256": hashlib.sha256(prompts.encode()).hexdigest(),
    }
    path = options.out / MANIFEST
    if not path.is_file():
        write_json(path, manifest)
        return
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        changed = [name for name, value in manifest.items() if found[name] != value]
    except (ValueError, TypeError, LookupError) as error:
        raise DataError(f"{path} is damaged ({error}); choose another folder") from error
    if changed:
        told = ", ".join(f"{name} {found[name]!r}, now {manifest[name]!r}" for name in changed)
        raise ConfigError(f"{options.out} holds pictures drawn with {told}; choose another folder")


def _load(options: argparse.Namespace) -> DiffusionDrawer:
    if options.diffusion_model == "tiny":
        return tiny_drawer()
    device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = torch.float16 if device == "cuda" else torch.float32  # half precision crawls on a CPU
    return load_drawer(options.diffusion_model, device, dtype, options.scheduler, options.batch_size)


def _parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("prompts", type=Path, help="tab-separated table with a column Prompt")
    parser.add_argument("out", type=Path, help="folder of the pictures, new or from a stopped run")
    parser.add_argument("--diffusion-model", default=DEFAULT_DIFFUSION, help="folder or hub name")
    parser.add_argument("--scheduler", choices=sorted(SCHEDULERS), help="default: the model's own")
    parser.add_argument("--steps", type=int, help="denoising steps (default: as the model says)")
    parser.add_argument("--guidance-scale", type=float, help="default: as the model says")
    parser.add_argument("--num-images", type=int, default=1, help="pictures a prompt (default: 1)")
    parser.add_argument("--batch-size", type=int, help="pictures drawn together (default: by their size)")
    parser.add_argument("--seed", type=int, default=1337, help="of the first picture (default: 1337)")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
