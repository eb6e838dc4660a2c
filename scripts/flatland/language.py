"""Stage `language`: an OPTForCausalLM trained on the world's text alone.

A low loss is not enough: the model must copy facts from its context, an ability that appears suddenly and depends on
a wider initialisation than the library's default and on a start with texts that only repeat themselves. The stage
fails when copying did not appear.
"""

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoTokenizer, OPTConfig, OPTForCausalLM, PreTrainedTokenizerFast

from gill.errors import TrainingError
from gill.flatland.documents import MIXTURE, Mixture, document, story_text
from gill.flatland.stories import story
from gill.flatland.world import COLOURS, item_rng
from scripts.flatland.common import BuildContext, Training, half_on_cpu

STEPS, BATCH, LEARNING_RATE = 3200, 32, 2e-3
REPEAT_ONLY_SHARE = 0.28
REPEATS_AFTERWARDS = 0.1
# The second phase reads mostly stories, half of them with pictures in brackets, and no more repeats.
STORY_STEPS = 2000
STORY_MIXTURE: Mixture = (0.15, 0.65, 0.2, 0.0)
LATE_START_SHARE = 0.25
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


def batch(
    tokenizer: PreTrainedTokenizerFast, seed: int, step: int, repeats: float, mixture: Mixture, listed: float = 0.0
) -> list[tuple[Tensor, Tensor]]:
    """Groups of (int64[B, T] tokens with `</s>` at both ends and pads on the right, int64[B, T] positions).

    A share of the texts starts late, so that every position is trained although texts are short.
    """
    texts = [document("train", step * BATCH + index, seed, repeats, mixture, listed) for index in range(BATCH)]
    rows = sorted((tokenizer.encode(text + tokenizer.eos_token) for text in texts), key=len)
    rng = item_rng(seed, "train", "late-start", step)
    groups = []
    for at in range(0, BATCH, BATCH // NUM_GROUPS):
        ids = tokenizer.pad({"input_ids": rows[at : at + BATCH // NUM_GROUPS]}, return_tensors="pt").input_ids
        room = MAX_POSITIONS - ids.shape[1]
        starts = [rng.randrange(room) if repeats < 1 and rng.random() < LATE_START_SHARE else 0 for _ in ids]
        groups.append((ids, torch.tensor(starts)[:, None] + torch.arange(ids.shape[1])))
    return groups


def language_loss(model: OPTForCausalLM, groups: list[tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """Mean next-token cross entropy in nats over everything but pads, over all groups together."""
    device, pad = model.device, model.config.pad_token_id
    total, count = torch.zeros((), device=device), 0
    for rows, positions in groups:
        logits = model(input_ids=rows.to(device), position_ids=positions.to(device), use_cache=False).logits[:, :-1]
        labels = rows[:, 1:].masked_fill(rows[:, 1:] == pad, -100).to(device)
        total = total + F.cross_entropy(logits.flatten(0, 1), labels.flatten(), reduction="sum")
        count += int((labels != -100).sum())
    return {"loss": total / count}


def build(context: BuildContext) -> dict[str, float]:
    """Train in two phases; check and write as `finish` does."""
    torch.manual_seed(context.seed)
    tokenizer = AutoTokenizer.from_pretrained(context.out / "language")
    model = new_language_model().to(context.device)
    steps = context.steps(STEPS)

    def first_loss(step: int) -> dict[str, Tensor]:
        repeats = 1.0 if step < REPEAT_ONLY_SHARE * steps else REPEATS_AFTERWARDS
        return language_loss(model, batch(tokenizer, context.seed, step, repeats, MIXTURE))

    def second_loss(step: int) -> dict[str, Tensor]:
        return language_loss(model, batch(tokenizer, context.seed, steps + step, 0.0, STORY_MIXTURE))

    first = Training("language", model, first_loss, steps, LEARNING_RATE)
    first.run(context)
    second = Training("language_stories", model, second_loss, context.steps(STORY_STEPS), LEARNING_RATE)
    second.run(context)
    seconds = first.seconds + second.seconds
    return {"steps": steps, "story_steps": second.steps, "seconds": seconds} | finish(model, tokenizer, context)


def finish(model: OPTForCausalLM, tokenizer: PreTrainedTokenizerFast, context: BuildContext) -> dict[str, float]:
    """Check that copying appeared, and write `language`.

    Raises:
        TrainingError: if too few colours of a story are copied into its last picture's brackets.
    """
    copied = copied_colours(model, tokenizer, 100)
    if context.scale >= 1 and copied < MIN_COPIED_COLOURS:
        raise TrainingError(
            f"the language model copies {copied:.0%} of the colours of a story, {MIN_COPIED_COLOURS:.0%} are wanted; "
            "try another --seed"
        )
    half_on_cpu(model).save_pretrained(context.out / "language")
    return {"copied_colours": copied}


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
