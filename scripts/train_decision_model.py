"""Train the head that decides whether a picture is better fetched or drawn, and say how good it is.

    python scripts/process_p2_annotations.py data/flatland/data/PartiPromptsAllDecisions.tsv runs/decision/decisions.tsv
    python scripts/train_decision_model.py runs/decision/decisions.tsv runs/flatland/model

Prompts decided `gen` or `ret` are read by the frozen model, and a linear classifier is trained on the hidden state at
[IMG0] (GILL, arXiv:2305.17216, section 3.4): dropout 0.5, balanced classes, stopped by validation rows, calibrated by
one temperature on them. A random quarter of the prompts is the test, which nothing is chosen on; equal prompts never
lie on both sides. `--train-rows 600` tests on PartiPrompts' rows from 601 on, as the released notebook does.

MODEL/decision.safetensors and decision.json are what `gill.load_gill` reads. WORK keeps the hidden states (computed
once for a model and its prompts), report.json and reliability.png. `--released FILE` also writes the head as the
original's `decision_model.pth.tar`.
"""

import argparse
import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gill._torchvision import define_missing_torchvision_ops

define_missing_torchvision_ops()

import torch
from torch import Tensor

from gill.files import write_json
from gill.models.gill import (
    load_trained,
    save_decision,
    write_decision,
)
from scripts.command import carry_out
from scripts.decision.head import HeadRecipe, check_split, split_prompts, train_head
from scripts.decision.report import PUBLISHED, draw_reliability, in_words, measure
from scripts.decision.states import stored_states
from scripts.decision.votes import AGREED, GENERATE, SAME, read_decisions


def main(words: list[str] | None = None) -> int:
    """Train, write and report; returns the exit status."""
    options = _parse(words)
    return carry_out("train_decision_model", lambda: _train(options))


def _train(options: argparse.Namespace) -> str:
    rows = [row for row in read_decisions(options.decisions) if row.cells[AGREED] != SAME]
    prompts = [row.prompt for row in rows]
    label_N = torch.tensor([int(row.cells[AGREED] != GENERATE) for row in rows], dtype=torch.long)
    split = split_prompts(prompts, options.seed, options.train_rows)
    check_split(split, label_N)
    model, tokenizer = load_trained(options.model, "cuda" if torch.cuda.is_available() else "cpu")
    state_ND = stored_states(model, tokenizer, prompts, options.work)
    recipe = HeadRecipe(options.lr, options.steps, options.patience, not options.unbalanced, options.seed)
    head, losses = train_head(state_ND, label_N, split, recipe)
    with torch.no_grad():
        probability_N2 = head(state_ND[split.test]).softmax(1)
    report = {
        **measure(probability_N2, label_N[split.test]),
        "num_train": len(split.train),
        "num_validation": len(split.validation),
        "num_steps": len(losses),
        "validation_loss": min(losses),
        "recipe": vars(recipe),
        "published": PUBLISHED,
    }
    save_decision(options.model, head, model.img_tokens.input_rows, report)
    if options.released is not None:
        options.released.parent.mkdir(parents=True, exist_ok=True)
        write_decision(options.released, head)
    _write_report(options.work, report, probability_N2, label_N[split.test])
    return f"{options.model}: a decision head from {len(split.train)} prompts, {in_words(report)}"


def _write_report(work: Path, report: dict[str, Any], probability_N2: Tensor, true_N: Tensor) -> None:
    write_json(work / "report.json", report)
    draw_reliability(work / "reliability.png", probability_N2, true_N)


def _parse(words: list[str] | None) -> argparse.Namespace:
    recipe = HeadRecipe()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("decisions", type=Path, help="table that process_p2_annotations.py wrote")
    parser.add_argument("model", type=Path, help="folder of a trained model, as main.py writes it, or a released one")
    parser.add_argument("--work", type=Path, default=Path("runs/decision"), metavar="DIR", help="states and report")
    parser.add_argument(
        "--train-rows", type=int, metavar="N", help="train on the first N decided rows, test on the rest"
    )
    parser.add_argument(
        "--released", type=Path, metavar="FILE", help="also write the original's decision_model.pth.tar"
    )
    parser.add_argument("--unbalanced", action="store_true", help="let the commoner class weigh more")
    parser.add_argument("--lr", type=float, default=recipe.learning_rate)
    parser.add_argument("--steps", type=int, default=recipe.num_steps, help="at most")
    parser.add_argument("--patience", type=int, default=recipe.patience, help="steps without a better validation loss")
    parser.add_argument("--seed", type=int, default=recipe.seed, help="of the split and the head's first weights")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
