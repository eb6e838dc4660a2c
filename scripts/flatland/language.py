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
from gill.flatland.documents import document, story_text
from gill.flatland.stories import story
from gill.flatland.world import COLOURS, item_rng
from scripts.flatland.common import BuildContext, Training, half_on_cpu

STEPS, BATCH, LEARNING_RATE = 3200, 32, 2e-3
REPEAT_ONLY_SHARE = 0.28
REPEATS_AFTERWARDS = 0.1
LATE_START_SHARE = 0.25
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


def batch(tokenizer: PreTrainedTokenizerFast, seed: int, step: int, repeats: float) -> tuple[Tensor, Tensor]:
    """(int64[B, T] tokens with `</s>` at both ends and pads on the right, int64[B, T] positions).

    A share of the texts starts late, so that every position is trained although texts are short.
    """
    texts = [document("train", step * BATCH + index, seed, repeats) for index in range(BATCH)]
    rows = tokenizer([text + tokenizer.eos_token for text in texts], padding=True, return_tensors="pt").input_ids
    rng = item_rng(seed, "train", "late-start", step)
    room = MAX_POSITIONS - rows.shape[1]
    starts = [rng.randrange(room) if repeats < 1 and rng.random() < LATE_START_SHARE else 0 for _ in texts]
    return rows, torch.tensor(starts)[:, None] + torch.arange(rows.shape[1])


def language_loss(model: OPTForCausalLM, rows: Tensor, positions: Tensor) -> dict[str, Tensor]:
    """Mean next-token cross entropy in nats over everything but pads."""
    logits = model(input_ids=rows, position_ids=positions, use_cache=False).logits[:, :-1]
    labels = rows[:, 1:].masked_fill(rows[:, 1:] == model.config.pad_token_id, -100)
    loss = F.cross_entropy(logits.flatten(0, 1), labels.flatten())
    return {"loss": loss}


def build(context: BuildContext) -> dict[str, float]:
    """Train, check that copying appeared, and write `language`.

    Raises:
        TrainingError: if too few colours of a story are copied into its last picture's brackets.
    """
    torch.manual_seed(context.seed)
    tokenizer = AutoTokenizer.from_pretrained(context.out / "language")
    model = new_language_model().to(context.device)
    steps = context.steps(STEPS)

    def loss(step: int) -> dict[str, Tensor]:
        repeats = 1.0 if step < REPEAT_ONLY_SHARE * steps else REPEATS_AFTERWARDS
        rows, positions = batch(tokenizer, context.seed, step, repeats)
        return language_loss(model, rows.to(context.device), positions.to(context.device))

    training = Training("language", model, loss, steps, LEARNING_RATE)
    training.run(context).eval()
    copied = copied_colours(model, tokenizer, 100)
    if context.scale >= 1 and copied < MIN_COPIED_COLOURS:
        raise TrainingError(
            f"the language model copies {copied:.0%} of the colours of a story, {MIN_COPIED_COLOURS:.0%} are wanted; "
            "try another --seed"
        )
    half_on_cpu(model).save_pretrained(context.out / "language")
    return {"steps": steps, "batch": BATCH, "seconds": training.seconds, "copied_colours": copied}


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
