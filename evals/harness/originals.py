"""The original's commands over `generate.py` and `score.py`: its names and arguments, any of ours behind them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from evals.generate import main as generate
from evals.score import load_groups
from gill.backbones import DEFAULT_CLIP
from gill.files import write_text
from scripts.command import carry_out

MODEL = "checkpoints/gill_opt"


def generate_images(task: str, data: str, about: str | None, words: list[str] | None) -> int:
    """Answer a drawing task as the original's script of one argument does; returns the exit status.

    Args:
        data: where the original looks for the data. about: the caller's docstring.
    """
    parser = _parser(about)
    parser.add_argument("output_dir", nargs="?", help="folder of the answers, new or from a stopped run")
    parser.add_argument("--system", default="gill", help="and any other option of generate.py")
    words = sys.argv[1:] if words is None else words
    is_gill = parser.parse_known_args(words)[0].system == "gill"
    return generate([task, "--data", data, *(["--model", MODEL] if is_gill else []), *words])


def clip_similarity(run: str, file: str, about: str | None, words: list[str] | None) -> int:
    """Print the CLIP similarity of a run and write it to `file`; returns the exit status."""
    parser = _parser(about)
    parser.add_argument("run", type=Path, nargs="?", default=Path(run), help=f"default: {run}")
    parser.add_argument("--clip", default=DEFAULT_CLIP, help=f"default: {DEFAULT_CLIP}")
    parser.add_argument("--out", type=Path, default=Path(file), help=f"default: {file}")
    options = parser.parse_args(words)

    def work() -> str:
        (group,) = load_groups([options.run], options.clip)
        estimate = group.estimate("clip_similarity")
        write_text(options.out, str(estimate.mean))
        interval = f"{estimate.low:.4f} to {estimate.high:.4f}"
        return f"CLIP similarity: {estimate.mean} (95 % {interval}, n = {estimate.num_items})"

    return carry_out("compute_clip_similarity", work)


def _parser(about: str | None) -> argparse.ArgumentParser:
    return argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
