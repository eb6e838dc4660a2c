"""Measures of Flatland's language model: caption entropy, copying from context, and how a context helps.

Copying is read off teacher-forced: at each colour (place, shape) of a story's last brackets, is the true word the most
likely of all words?
"""

import math
from collections.abc import Sequence
from pathlib import Path

import matplotlib
import torch
from torch.nn import functional as F
from transformers import OPTForCausalLM, PreTrainedTokenizerFast

from gill.flatland.captions import caption, caption_entropy, random_caption
from gill.flatland.dialogues import NUM_ROUNDS, dialogue, dialogue_text
from gill.flatland.documents import bracket, story_caption, story_text
from gill.flatland.stories import NUM_FRAMES, Story, story
from gill.flatland.world import COLOURS, ONE_THING_SHARE, PLACES, SHAPES, item_rng, scenes
from scripts.flatland.evaluation import Measures
from scripts.flatland.retell import MIXTURE

matplotlib.use("Agg")
from matplotlib import pyplot

FACTS = {"colour": COLOURS, "place": PLACES, "shape": SHAPES}
# Share of the last stage's training texts that open with a plain caption, not with one in brackets.
PLAIN_CAPTION_SHARE = MIXTURE[0] * 0.5


class Reader:
    """Asks a causal language model for the log-likelihood and the best guess of each token of some texts."""

    def __init__(self, model: OPTForCausalLM, tokenizer: PreTrainedTokenizerFast) -> None:
        self.model, self.tokenizer = model, tokenizer

    def token_of(self, word: str) -> int:
        """The one id of a word after a space."""
        return self.tokenizer.encode(f" {word}", add_special_tokens=False)[0]

    @torch.no_grad()
    def read(self, texts: Sequence[str]) -> list[tuple[list[int], list[float], list[int]]]:
        """For each text: its ids (the opening `</s>` first), and from the second id on, log-likelihoods and guesses."""
        rows = []
        for text in texts:
            ids = self.tokenizer(text, return_tensors="pt").input_ids.to(self.model.device)
            log_probs = F.log_softmax(self.model(input_ids=ids).logits[0, :-1], dim=-1)
            likelihoods = log_probs.gather(1, ids[0, 1:, None])[:, 0]
            rows.append((ids[0].tolist(), likelihoods.tolist(), log_probs.argmax(-1).tolist()))
        return rows


def language_measures(reader: Reader, count: int, seed: int) -> Measures:
    """Entropy gap of captions, and copying in stories with and without their pictures in brackets."""
    told = [story("test", index, seed) for index in range(count)]
    measures = {f"lm_context_{name}": right for name, right in copied(reader, told, True).items()}
    measures |= {f"lm_plain_{name}": right for name, right in copied(reader, told, False).items()}
    return measures | {"lm_caption_excess": caption_excess(reader, count, seed)}


def caption_excess(reader: Reader, count: int, seed: int) -> list[float]:
    """How far the model's surprise at held-out captions is above the grammar's, as a share of the caption's entropy.

    The grammar's surprise at a text that opens with a caption is that of the caption and of the choice of such a text.
    """
    excess = []
    found = list(scenes("test", count, seed))
    rng = item_rng(seed, "test", "language-caption", 0)
    for scene, (_, likelihoods, _) in zip(found, reader.read([random_caption(rng, s) for s in found]), strict=True):
        number = len(scene.things)
        share = ONE_THING_SHARE if number == 1 else 1 - ONE_THING_SHARE
        grammar = caption_entropy(number) - math.log(share)
        surprise = -sum(likelihoods) + math.log(PLAIN_CAPTION_SHARE)
        excess.append((surprise - grammar) / caption_entropy())
    return excess


def copied(reader: Reader, told: list[Story], illustrated: bool) -> dict[str, list[float]]:
    """Whether each colour, place and shape of the last brackets is the model's first guess.

    Args:
        reader: of the model under test.
        told: stories.
        illustrated: whether the first four pictures are told in brackets too.
    """
    opening = reader.token_of("(")
    right: dict[str, list[float]] = {name: [] for name in FACTS}
    for ids, _, guesses in reader.read([story_text(each, [illustrated] * (NUM_FRAMES - 1) + [True]) for each in told]):
        last = len(ids) - 1 - ids[::-1].index(opening)
        for name, words in FACTS.items():
            tokens = {reader.token_of(word) for word in words}
            right[name] += [float(guesses[at - 1] == ids[at]) for at in range(last, len(ids)) if ids[at] in tokens]
    return right


def context_curves(reader: Reader, count: int, seed: int) -> dict[str, list[float]]:
    """Mean surprise in nats at the last picture's caption, by how much of the context is given.

    Returns:
        "story texts" and "story texts and pictures": after the last 1..5 texts; "dialogue": after 0..10 rounds.
    """
    told = [story("test", index, seed) for index in range(count)]
    held = [dialogue("test", index, seed) for index in range(count)]
    curves: dict[str, list[float]] = {}
    for name, shown in (("story texts", False), ("story texts and pictures", True)):
        contexts = [[_story_tail(each, texts, shown) for each in told] for texts in range(1, NUM_FRAMES + 1)]
        curves[name] = [_caption_surprise(reader, pairs) for pairs in contexts]
    rounds = [
        [(dialogue_text(each.rounds[:asked]), caption(each.scene)) for each in held] for asked in range(NUM_ROUNDS + 1)
    ]
    curves["dialogue"] = [_caption_surprise(reader, pairs) for pairs in rounds]
    return curves


def _story_tail(told: Story, texts: int, shown: bool) -> tuple[str, str]:
    """(the last `texts` texts with their pictures where shown, the last picture's caption)."""
    context = story_text(told, [shown] * (NUM_FRAMES - 1) + [False], NUM_FRAMES - texts)
    return context, story_caption(told, told.scenes[-1])


def _caption_surprise(reader: Reader, pairs: list[tuple[str, str]]) -> float:
    """Mean nats of captions in brackets after their contexts, the opening bracket left out."""
    opening = {reader.token_of("("), reader.tokenizer.encode("\n(", add_special_tokens=False)[-1]}
    total = 0.0
    for ids, likelihoods, _ in reader.read([_joined(*pair) for pair in pairs]):
        last = max(at for at, token in enumerate(ids) if token in opening)
        total -= sum(likelihoods[last:])
    return total / len(pairs)


def _joined(context: str, text: str) -> str:
    between = "\n" if context.startswith("Q:") else " " if context else ""
    return f"{context}{between}{bracket(text)}"


def plot_curves(curves: dict[str, list[float]], path: Path) -> None:
    """Two panels: stories by number of texts, dialogues by number of rounds."""
    figure, (left, right) = pyplot.subplots(1, 2, figsize=(9, 3.6), sharey=True)
    for name in ("story texts", "story texts and pictures"):
        left.plot(range(1, NUM_FRAMES + 1), curves[name], marker="o", label=name)
    left.set(xlabel="last texts given", ylabel="surprise at the last picture's caption (nats)", title="stories")
    left.legend()
    right.plot(range(NUM_ROUNDS + 1), curves["dialogue"], marker="o", color="tab:green")
    right.set(xlabel="rounds given", title="dialogues")
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)
