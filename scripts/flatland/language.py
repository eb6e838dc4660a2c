"""Stage `language`: an OPTForCausalLM trained on the world's text alone.

A low loss is not enough: the model must copy facts from its context, an ability that appears suddenly and depends on
a wider initialisation than the library's default and on a start with texts that only repeat themselves. The stage
fails when copying did not appear.
"""

from dataclasses import dataclass
from random import Random

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoTokenizer, OPTConfig, OPTForCausalLM, PreTrainedTokenizerFast

from gill.errors import TrainingError
from gill.flatland.documents import MIXTURE, document, retelling, story_text
from gill.flatland.stories import story
from gill.flatland.world import COLOURS, item_rng
from scripts.flatland.common import BuildContext, Training, half_on_cpu

STEPS, BATCH, LEARNING_RATE = 3200, 32, 2e-3
REPEAT_ONLY_SHARE = 0.28
REPEATS_AFTERWARDS = 0.1
# The second phase reads mostly stories, half of them with pictures in brackets, and no more repeats.
STORY_STEPS = 2000
STORY_MIXTURE = (0.15, 0.65, 0.2)
LATE_START_SHARE = 0.25
# The third phase ends texts in brackets that retell them, of whose words a part is blank. The frozen model must be able
# to tell any fact at an input that says nothing: its [IMG] tokens are the same for every text.
RETELLING_STEPS, RETELLING_SHARE = 1500, 0.75
RETELLING_RATE = 1e-3
# A step's texts are read in groups of like length, which halves the padding and changes no gradient.
NUM_GROUPS = 4
MAX_POSITIONS = 512
MIN_COPIED_COLOURS = 0.8


def new_language_model() -> OPTForCausalLM:
    """An untrained OPT: 4 layers of width 192, 512 positions, 2.0 M parameters, tied head."""
    config = OPTConfig(
        vocab_size=512,
        hidden_size=192,
        word_embed_proj_dim=192,
        num_hidden_layers=4,
        num_attention_heads=6,
        ffn_dim=768,
        max_position_embeddings=MAX_POSITIONS,
        dropout=0.0,
        init_std=0.05,
        bos_token_id=2,
        eos_token_id=2,
        pad_token_id=1,
    )
    return OPTForCausalLM(config)


@dataclass(frozen=True)
class Group:
    """Texts of like length: int64[B, T] ids with `</s>` at both ends and pads on the right, what the model reads of
    them (the same but for blanks), and positions.
    """

    ids: Tensor
    read: Tensor
    positions: Tensor


def batch(tokenizer: PreTrainedTokenizerFast, texts: list[str], rng: Random, late_share: float) -> list[Group]:
    """The texts in groups of like length.

    Args:
        late_share: of texts that start late, so that every position is trained although texts are short.
    """
    rows = sorted((tokenizer.encode(text + tokenizer.eos_token) for text in texts), key=len)
    groups = []
    for at in range(0, len(rows), len(rows) // NUM_GROUPS):
        part = {"input_ids": rows[at : at + len(rows) // NUM_GROUPS]}
        ids = tokenizer.pad(part, return_tensors="pt").input_ids
        room = MAX_POSITIONS - ids.shape[1]
        starts = [rng.randrange(room) if late_share and rng.random() < late_share else 0 for _ in ids]
        groups.append(Group(ids, ids, torch.tensor(starts)[:, None] + torch.arange(ids.shape[1])))
    return groups


def with_blanks(group: Group, opening: set[int], blank: int, rng: Random) -> Group:
    """The same, but of what stands behind the last opening bracket none, a random part or all is read as `blank`."""
    read = group.ids.clone()
    for row, ids in zip(read, group.ids.tolist(), strict=True):
        last = max((at for at, token in enumerate(ids) if token in opening), default=len(ids))
        rate = rng.choice((0.0, rng.random(), rng.random(), 1.0))
        for at in range(last + 1, len(ids)):
            if rng.random() < rate:
                row[at] = blank
    return Group(group.ids, read, group.positions)


def language_loss(model: OPTForCausalLM, groups: list[Group]) -> dict[str, Tensor]:
    """Mean next-token cross entropy in nats over everything but pads, over all groups together."""
    device, pad = model.device, model.config.pad_token_id
    total, count = torch.zeros((), device=device), 0
    for group in groups:
        read, positions = group.read.to(device), group.positions.to(device)
        logits = model(input_ids=read, position_ids=positions, use_cache=False).logits[:, :-1]
        labels = group.ids[:, 1:].masked_fill(group.ids[:, 1:] == pad, -100).to(device)
        total = total + F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        count += int((labels != -100).sum())
    return {"loss": total / count}


class Lessons:
    """The three phases' losses as functions of their step; texts are numbered through."""

    def __init__(self, model: OPTForCausalLM, tokenizer: PreTrainedTokenizerFast, context: BuildContext) -> None:
        self.model, self.tokenizer, self.seed = model, tokenizer, context.seed
        self.steps = [context.steps(steps) for steps in (STEPS, STORY_STEPS, RETELLING_STEPS)]
        self.opening = {tokenizer.encode(text, add_special_tokens=False)[-1] for text in (" (", "\n(")}

    def copying(self, step: int) -> dict[str, Tensor]:
        """Texts that repeat themselves, then the whole mixture."""
        repeats = 1.0 if step < REPEAT_ONLY_SHARE * self.steps[0] else REPEATS_AFTERWARDS
        texts = self._documents(step, repeats, MIXTURE)
        return language_loss(self.model, self._batch(texts, step, LATE_START_SHARE if repeats < 1 else 0.0))

    def stories(self, step: int) -> dict[str, Tensor]:
        """Mostly stories."""
        step += self.steps[0]
        return language_loss(self.model, self._batch(self._documents(step, 0.0, STORY_MIXTURE), step, LATE_START_SHARE))

    def retelling(self, step: int) -> dict[str, Tensor]:
        """Mostly retellings with blanks."""
        step += self.steps[0] + self.steps[1]
        rng = item_rng(self.seed, "train", "blanks", step)
        num_retold = round(RETELLING_SHARE * BATCH)
        texts = [retelling("train", step * BATCH + index, self.seed) for index in range(num_retold)]
        texts += self._documents(step, 0.0, STORY_MIXTURE)[num_retold:]
        groups = self._batch(texts, step, LATE_START_SHARE)
        blank = self.model.config.pad_token_id
        return language_loss(self.model, [with_blanks(group, self.opening, blank, rng) for group in groups])

    def _documents(self, step: int, repeats: float, mixture: tuple[float, float, float]) -> list[str]:
        return [document("train", step * BATCH + index, self.seed, repeats, mixture) for index in range(BATCH)]

    def _batch(self, texts: list[str], step: int, late_share: float) -> list[Group]:
        return batch(self.tokenizer, texts, item_rng(self.seed, "train", "late-start", step), late_share)


def build(context: BuildContext) -> dict[str, float]:
    """Train in three phases, check that copying appeared, and write `language`.

    Raises:
        TrainingError: if too few colours of a story are copied into its last picture's brackets.
    """
    torch.manual_seed(context.seed)
    tokenizer = AutoTokenizer.from_pretrained(context.out / "language")
    model = new_language_model().to(context.device)
    lessons = Lessons(model, tokenizer, context)
    phases = [
        Training("language", model, lessons.copying, lessons.steps[0], LEARNING_RATE),
        Training("language_stories", model, lessons.stories, lessons.steps[1], LEARNING_RATE),
        Training("language_retelling", model, lessons.retelling, lessons.steps[2], RETELLING_RATE),
    ]
    for phase in phases:
        phase.run(context)
    copied = copied_colours(model, tokenizer, 100)
    if context.scale >= 1 and copied < MIN_COPIED_COLOURS:
        raise TrainingError(
            f"the language model copies {copied:.0%} of the colours of a story, {MIN_COPIED_COLOURS:.0%} are wanted; "
            "try another --seed"
        )
    half_on_cpu(model).save_pretrained(context.out / "language")
    counts = {f"{phase.name}_steps": phase.steps for phase in phases}
    return {**counts, "seconds": sum(phase.seconds for phase in phases), "copied_colours": copied}


@torch.no_grad()
def copied_colours(model: OPTForCausalLM, tokenizer: PreTrainedTokenizerFast, count: int) -> float:
    """Share of the colours in the last brackets of illustrated validation stories that the model puts first."""
    colour_ids = {tokenizer.encode(f" {colour}", add_special_tokens=False)[0] for colour in COLOURS}
    right = total = 0
    for index in range(count):
        text = story_text(story("val", index), [True] * 5)
        ids = tokenizer(text, return_tensors="pt").input_ids.to(model.device)
        last_bracket = (ids[0] == tokenizer.encode(" (", add_special_tokens=False)[0]).nonzero()[-1].item()
        guesses = model(input_ids=ids).logits[0].argmax(-1)
        places = [at for at in range(last_bracket, ids.shape[1]) if ids[0, at].item() in colour_ids]
        right += sum(int(guesses[at - 1] == ids[0, at]) for at in places)
        total += len(places)
    return right / total
