"""Make Flatland's frozen parts again, from seeds: tokenizers, language model, CLIP, autoencoder, diffusion model.

    python scripts/build_flatland.py                       # every stage; hours on 2 CPU cores
    python scripts/build_flatland.py --stages vae clip     # some stages; later ones need the earlier ones
    python scripts/build_flatland.py --scale 0.01 --out /tmp/parts --work /tmp/work    # a rehearsal, minutes

Each stage saves its state to WORK/STAGE every two minutes and continues from there when the same command is run again;
a finished stage is skipped. TensorBoard curves and sample panels are in WORK/STAGE. The parts in OUT load with
transformers and diffusers alone.
"""

import argparse
import importlib
import json
import logging
import os
import sys
import time
from pathlib import Path

os.environ.setdefault("HF_HUB_OFFLINE", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch

from gill._torchvision import define_missing_torchvision_ops

define_missing_torchvision_ops()

from gill.errors import ConfigError, GillError
from gill.files import write_json
from scripts.flatland.common import BuildContext

STAGES = ("tokenizers", "language", "retell", "clip", "vae", "diffusion", "refine")
logger = logging.getLogger("flatland")


def main(arguments: list[str] | None = None) -> int:
    """Build the asked stages in their order; returns the exit status."""
    options = _parse(arguments)
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    if options.threads:
        torch.set_num_threads(options.threads)
    context = BuildContext(options.work, options.out, options.seed, torch.device(options.device), options.scale)
    try:
        for stage in [stage for stage in STAGES if stage in options.stages]:
            build_stage(stage, context)
    except (GillError, OSError) as error:
        print(f"build_flatland: {error}", file=sys.stderr)
        return 2
    return 0


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--stages", nargs="+", choices=STAGES, default=STAGES, help="default: all")
    parser.add_argument("--out", type=Path, default=Path("checkpoints/flatland"), metavar="DIR", help="finished parts")
    parser.add_argument("--work", type=Path, default=Path("runs/flatland_parts"), metavar="DIR", help="state and logs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--scale", type=float, default=1.0, help="multiplies the steps of every stage")
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 1 when several stages run side by side")
    return parser.parse_args(arguments)


def build_stage(stage: str, context: BuildContext) -> None:
    """Run one stage unless it is finished, and note in WORK/STAGE/done.json what it took.

    Raises:
        ConfigError: if the stage was finished with another seed or scale, an earlier stage is missing, or the output
            folder holds something else.
    """
    done = context.work / stage / "done.json"
    asked = {"seed": context.seed, "scale": context.scale}
    if done.exists():
        found = json.loads(done.read_text())
        if {name: found.get(name) for name in asked} != asked:
            raise ConfigError(f"{done} is from another build ({found}); choose another --work or remove it")
        logger.info("%s: finished earlier", stage)
        return
    _check_out(context.out)
    _check_earlier(stage, context)
    done.parent.mkdir(parents=True, exist_ok=True)
    context.out.mkdir(parents=True, exist_ok=True)
    began = time.monotonic()
    report = importlib.import_module(f"scripts.flatland.{stage}").build(context)
    write_json(done, asked | report | {"wall_seconds_of_last_run": round(time.monotonic() - began, 1)})
    logger.info("%s: %s", stage, json.dumps(report))


OUT_NAMES = {"language", "clip", "diffusion", "README.md"}
NEEDS = {
    "tokenizers": (),
    "language": ("language/tokenizer.json",),
    "retell": ("language/config.json",),
    "clip": ("clip/tokenizer.json",),
    "vae": (),
    "diffusion": ("diffusion/vae/config.json", "diffusion/text_encoder/config.json", "diffusion/tokenizer"),
    "refine": ("diffusion/unet/config.json",),
}


def _check_out(out: Path) -> None:
    """Refuse a folder that holds anything but parts."""
    strangers = {path.name for path in out.iterdir()} - OUT_NAMES if out.is_dir() else set()
    if strangers or (out.exists() and not out.is_dir()):
        raise ConfigError(
            f"--out {out} holds something else ({', '.join(sorted(strangers)) or 'a file'}); choose another"
        )


def _check_earlier(stage: str, context: BuildContext) -> None:
    missing = [name for name in NEEDS[stage] if not (context.out / name).exists()]
    if missing:
        raise ConfigError(f"stage {stage} needs {context.out / missing[0]}; run the earlier stages first")


if __name__ == "__main__":
    sys.exit(main())
