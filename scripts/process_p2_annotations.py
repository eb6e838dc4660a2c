"""From people's votes to decisions: keep the prompts on which voters agree that a picture is better fetched or drawn.

    python scripts/process_p2_annotations.py PartiPromptsAllDecisions_Alignment.tsv PartiPromptsDecisionsConfident.tsv
    python scripts/process_p2_annotations.py data/flatland/data/PartiPromptsAllDecisions.tsv runs/decision/decisions.tsv

Each prompt has five votes: `gen` (the drawn picture fits better), `ret` (the fetched one), `same`. A side is the
decision with four votes, or with three where the other side has one at most; else the decision is `same`, which
scripts/train_decision_model.py leaves out. With the votes on alignment that are released beside GILL (arXiv:2305.17216,
section 4.3) this writes the released decisions, line by line.
"""

import argparse
import sys
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from gill.errors import DataError
from scripts.command import carry_out
from scripts.decision.votes import CHOICES, SAME, agreed_choice, read_votes, write_decisions


def main(words: list[str] | None = None) -> int:
    """Write the decisions; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("votes", type=Path, help="table with the columns Prompt and Decisions")
    parser.add_argument("decisions", type=Path, help="table to write, with a column Decision")
    options = parser.parse_args(words)
    return carry_out("process_p2_annotations", lambda: _process(options.votes, options.decisions))


def _process(votes: Path, decisions: Path) -> str:
    if decisions.exists() and decisions.samefile(votes):
        raise DataError(f"{decisions} is the file of votes itself; give another name for the decisions")
    voted = read_votes(votes)
    decided = [(row, agreed_choice(each)) for row, each in voted]
    write_decisions(decisions, decided)
    count = Counter(choice for _, choice in decided)
    cast = [
        vote == choice for (_, each), (_, choice) in zip(voted, decided, strict=True) if choice != SAME for vote in each
    ]
    summary = ", ".join(f"{count[choice]} {choice}" for choice in CHOICES)
    agreement = f"; {sum(cast) / len(cast):.0%} of the votes on decided prompts agree with them" if cast else ""
    return f"{decisions}: {summary}{agreement}"


if __name__ == "__main__":
    sys.exit(main())
