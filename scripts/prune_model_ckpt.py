"""Keep of a checkpoint what trains, and nothing else.

    python scripts/prune_model_ckpt.py runs/gill_exp                      # best weights -> runs/gill_exp/pruned/
    python scripts/prune_model_ckpt.py runs/gill_exp --which last --out checkpoints/mine
    python scripts/prune_model_ckpt.py runs/gill_exp --half               # matrices in float16, half the size
    python scripts/prune_model_ckpt.py runs/gill_exp --released           # pretrained_ckpt.pth.tar, model_args.json
    python scripts/prune_model_ckpt.py their_run/ckpt_best.pth.tar --out checkpoints/theirs

RUN is a run folder of main.py, a saved model, or a run folder or `.pth.tar` of the originals (frozen model, optimiser
and whole embedding table included) with its `model_args.json` beside it. The result is a folder that `load_gill` opens:
`weights.safetensors` and `model.json`, or with --released the two files the originals' loaders read, in bfloat16.
The frozen parts are named in the settings, not copied. Nothing in a `.pth.tar` is executed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gill._torchvision import define_missing_torchvision_ops
from scripts.command import carry_out

define_missing_torchvision_ops()

from gill.errors import ConfigError
from gill.models.gill import read_trained, write_trained, write_trained_as_released


def main(words: list[str] | None = None) -> int:
    """Write the pruned model; returns the exit status."""
    options = _parse(words)
    return carry_out("prune_model_ckpt", lambda: _prune(options, options.out or _default_out(options.run)))


def _prune(options: argparse.Namespace, out: Path) -> str:
    _claim(out, options.force)
    trained = read_trained(options.run, options.which)
    trained = trained.halved() if options.half else trained
    write = write_trained_as_released if options.released else write_trained
    with tempfile.TemporaryDirectory(prefix=".pruned-", dir=_made(out.parent)) as unfinished:
        write(Path(unfinished), trained)
        for path in Path(unfinished).iterdir():
            path.replace(_made(out) / path.name)
    size = sum(path.stat().st_size for path in out.iterdir())
    return f"{out}: {trained.num_values:,} trained numbers of {trained.source}, {size / 1e6:.1f} MB"


def _default_out(run: Path) -> Path:
    return (run if run.is_dir() else run.parent) / "pruned"


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def _claim(out: Path, is_forced: bool) -> None:
    """Refuse to touch what is there.

    Raises:
        ConfigError: there is something, and --force was not given.
    """
    if out.exists() and not is_forced:
        raise ConfigError(f"{out} exists; give another --out, or --force to replace its weights and settings")


def _parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("run", type=Path, metavar="RUN", help="run folder, saved model, or .pth.tar of the originals")
    parser.add_argument("--which", choices=("best", "last"), default="best", help="of a run's checkpoints")
    parser.add_argument("--out", type=Path, metavar="FOLDER", help="folder to write (default: RUN/pruned)")
    parser.add_argument("--released", action="store_true", help="write the originals' layout instead of ours")
    parser.add_argument("--half", action="store_true", help="store matrices in float16")
    parser.add_argument("--force", action="store_true", help="replace weights and settings in --out")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
