"""Score folders of answers: means with their 95 % bootstrap intervals, n, gallery size and seeds.

    python evals/score.py runs/eval/vist runs/eval/vist_sd --against diffusion
    python evals/score.py runs/eval/vist runs/eval/vist_sd --against diffusion --clip checkpoints/flatland/clip

Folders are those of `evals/generate.py`. Runs of one task, context, protocol and label are one system under several
seeds; items are drawn anew within seeds, those about one picture together, and "±" is the standard deviation of the
seeds' own means. `--against LABEL` adds the paired difference with that system on the items that both answered. Scores
are kept in RUN/scores.json.

    clip_similarity     cosine of CLIP's image features of the drawn and the true picture
    lpips               with --lpips: perceptual distance of the drawn and the true picture; less is better
    clip_text_similarity    cosine of CLIP's features of the drawn picture and the caption it is drawn from
    fid, kid            with --fid: distances of the set of drawn pictures from that of the true ones; less is better.
                        an interval takes a hundred resamples, each two eigendecompositions as wide as the features
    judge.*             Flatland alone: what the judge reads in the drawn picture, or in the caption
    r@k                 share of questions whose right answer is among the first k; i2t_r@k of pictures, whose question;
                        t2i_r@k of candidates, whose picture, where questions share them
    mrr, ndcg           of ranked answers; ndcg on the rounds that have relevance
    accuracy, accuracy.*    VQA's, of all answers and of each type
    rouge_l, cider      of captions, in 0..1 and 0..10
    bleu1 to bleu4      of all captions together, in 0..1
"""

from __future__ import annotations

import argparse
import math
import os
import sys
from collections.abc import Iterator, Sequence
from functools import cache, partial
from pathlib import Path
from typing import Any

os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gill._torchvision import define_missing_torchvision_ops

define_missing_torchvision_ops()

from evals.harness.features import Features, load_features
from evals.harness.measures import Compare, Scorer, Scores
from evals.harness.perceptual import distances, load_maps
from evals.harness.runs import Finished, read_run
from evals.harness.summary import Group, group_runs, require_label, score_run, told
from evals.harness.systems import fingerprint_of_folder, pick_device
from evals.harness.tasks import find_task
from gill.backbones import DEFAULT_CLIP, Clip
from gill.files import write_json
from gill.flatland.writer import MANIFEST as FLATLAND
from gill.metrics import Estimate
from scripts.command import carry_out


def main(words: list[str] | None = None) -> int:
    """Score and print; returns the exit status."""
    options = _parse(words)
    return carry_out("score", lambda: _score(options))


def _score(options: argparse.Namespace) -> str:
    groups = load_groups(options.runs, options.clip, options.lpips, options.fid)
    if options.against:
        require_label(groups, options.against)
    if options.out is not None:
        summary = [as_json(group, _opponent(group, groups, options.against)) for group in groups]
        write_json(options.out, summary)
    return "\n".join(line for group in groups for line in _lines(group, _opponent(group, groups, options.against)))


def load_groups(folders: Sequence[Path], clip_name: str, lpips_name: str = "", fid_name: str = "") -> list[Group]:
    """Finished runs with their scores, by system.

    Args:
        lpips_name: "alex" or a CLIP, as `load_maps` takes it; nothing leaves LPIPS out.
        fid_name: "inception" or a CLIP, as `load_features` takes it; nothing leaves FID and KID out.

    Raises:
        MissingFileError: a folder without a finished run. DataError: damaged answers. ConfigError: no such
        network. CheckpointError: AlexNet or Inception cannot be fetched.
    """

    @cache
    def clip() -> Clip:
        return Clip(clip_name, pick_device())

    @cache
    def lpips() -> Compare:
        return partial(distances, load_maps(lpips_name, pick_device()))

    @cache
    def features() -> Features:
        return load_features(fid_name, pick_device())

    def score(run: Finished) -> Scores:
        has_judge = is_flatland(run)
        names = {"clip": clip_name, "lpips": lpips_name, "fid": fid_name}
        networks = {kind: [name, fingerprint_of_folder(name)] for kind, name in names.items()}
        settings = {**networks, "has_judge": has_judge}
        scorer = Scorer(clip, has_judge, lpips if lpips_name else None, features if fid_name else None)
        return score_run(run, scorer, settings)

    runs = [read_run(folder) for folder in folders]
    return group_runs(runs, [score(run) for run in runs])


def is_flatland(run: Finished) -> bool:
    """Whether the questions are about the miniature world, which the judge can read."""
    data = Path(run.manifest["data"])
    return any((folder / FLATLAND).is_file() for folder in (data, *data.resolve().parents))


def as_json(group: Group, opponent: Group | None) -> dict[str, Any]:
    """A group as numbers."""
    told: dict[str, Any] = {name: getattr(group, name) for name in ("task", "context", "protocol", "label")}
    told["noise_seeds"] = [run.manifest["seed"] for run in group.runs]
    told["models"] = [run.manifest["model"] for run in group.runs]
    told["gallery_size"] = group.scores[0].gallery_size
    told["left_out"], told["notes"] = group.left_out, group.runs[0].reading["notes"]
    told["measures"] = {name: _numbers(group.estimate(name)) for name in group.measures}
    if opponent is not None:
        told["against"] = opponent.label
        shared = [name for name in group.measures if name in opponent.measures]
        told["differences"] = {name: _numbers(group.difference(opponent, name)) for name in shared}
    return told


def _numbers(estimate: Estimate) -> dict[str, float | None]:
    return {
        "mean": estimate.mean,
        "low": estimate.low if math.isfinite(estimate.low) else None,
        "high": estimate.high if math.isfinite(estimate.high) else None,
        "n": estimate.num_items,
        "seeds": estimate.num_seeds,
        "seed_deviation": estimate.seed_deviation if estimate.num_seeds > 1 else None,
    }


def _opponent(group: Group, groups: Sequence[Group], label: str | None) -> Group | None:
    question = (group.task, group.context, group.protocol)
    return next(
        (
            other
            for other in groups
            if other.label == label and other is not group and (other.task, other.context, other.protocol) == question
        ),
        None,
    )


def _lines(group: Group, opponent: Group | None) -> Iterator[str]:
    gallery = f", gallery {group.scores[0].gallery_size}" if group.scores[0].gallery_size else ""
    yield f"{group.task} {group.context}, {group.protocol} protocol: {group.label}, {len(group.runs)} seeds{gallery}"
    models = dict.fromkeys(run.manifest["model"] for run in group.runs)
    if len(models) > 1:
        yield f"  mean of {', '.join(models)} (generate.py --label tells systems apart)"
    for name in group.measures:
        estimate = group.estimate(name)
        line = f"  {name:24}{told(estimate)}  n = {estimate.num_items}"
        if opponent is not None and name in opponent.measures:
            line += f"   minus {opponent.label}: {told(group.difference(opponent, name))}"
        yield line
    for reason, count in sorted({**group.left_out, **group.runs[0].reading["notes"]}.items()):
        yield f"  {count} x {reason}"
    for difference in find_task(group.task).differences if group.protocol == "paper" else []:
        yield f"  paper protocol, {difference}"


def add_networks(parser: argparse.ArgumentParser) -> None:
    """The flags that name what pictures are looked at with."""
    parser.add_argument("--clip", default=DEFAULT_CLIP, help=f"of CLIP similarity (default: {DEFAULT_CLIP})")
    parser.add_argument("--lpips", default="", metavar="NETWORK", help="alex, or folder or hub name of a CLIP")
    parser.add_argument("--fid", default="", metavar="NETWORK", help="inception, or folder or hub name of a CLIP")


def _parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", metavar="RUN", help="folders of generate.py")
    add_networks(parser)
    parser.add_argument("--against", metavar="LABEL", help="also the paired difference with this system")
    parser.add_argument("--out", type=Path, metavar="FILE.json", help="also write the numbers")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
