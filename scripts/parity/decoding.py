"""The recorded inference quantities, through the public generator.

Log-likelihoods, greedy decoding, and what is asked for at the first [IMG] group.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from gill.models.gill import Decoded, GillGenerator, GillModel
from gill.types import GenerationOptions, Segment
from scripts.parity.folder import ParityFolder
from scripts.parity.training import Quantities

PROMPTS: tuple[tuple[str | int, ...], ...] = (  # an integer is the number of a recorded picture
    ("Q: what is this ?\nA:",),
    (0, "A picture of"),
    ("a red circle sits on", 1, "the dog looks at", 2, "two yellow"),
    ("three birds floats over", 3, "a cat"),
    ("the dog",),
)
_HUGE_SCALE = 1e5
_EMIT_STEPS = 8


@dataclass(frozen=True)
class Decoding:
    """Greedy settings: name in the keys, steps, earliest [IMG0], factor on its logit."""

    name: str
    num_steps: int
    min_tokens: int = 0
    factor: float = 1.0

    @property
    def options(self) -> GenerationOptions:
        """The same as the generator takes them; the originals go on after a new line."""
        return GenerationOptions(
            num_words=self.num_steps,
            min_word_tokens=self.min_tokens,
            img_logit_scale=self.factor,
            max_num_images=self.num_steps,
            stop_at_newline=False,
        )


GILL_DECODINGS = (
    Decoding("plain", 12),
    Decoding("min5", 12, min_tokens=5),
    Decoding("forced", 2, factor=_HUGE_SCALE),
    Decoding("min3forced", 12, min_tokens=3, factor=_HUGE_SCALE),
)
FROMAGE_DECODINGS = (Decoding("plain", 12),)


def decoding_quantities(parity: ParityFolder) -> Quantities:
    """Every recorded inference quantity, by its key."""
    parity.task()
    generator = GillGenerator(parity.model, parity.tokenizer, parity.transform)
    for number, pieces in enumerate(PROMPTS):
        prompt = [
            Segment(text=piece) if isinstance(piece, str) else Segment(image=parity.images[piece]) for piece in pieces
        ]
        if f"loglik.{number}" in parity.golden:
            yield f"loglik.{number}", float(generator.log_likelihoods([prompt])[0].mean())
        if f"gen.{number}.plain.ids" in parity.golden:
            yield from _generated(parity, generator, f"gen.{number}", prompt)
        if f"emit.{number}.ids" in parity.golden:
            yield from _emitted(parity, generator, f"emit.{number}", prompt)


def contract(ids: Sequence[int], model: GillModel, end_id: int) -> list[int]:
    """Ids up to the first [IMG] group, or the first end of sequence before it: what follows is no contract."""
    first = model.vocabulary.num_words
    for place, token in enumerate(ids):
        if token == first:
            return list(ids[: place + model.config.num_img_tokens])
        if token == end_id:
            return list(ids[: place + 1])
    return list(ids)


def _generated(parity: ParityFolder, generator: GillGenerator, key: str, prompt: Sequence[Segment]) -> Quantities:
    for decoding in FROMAGE_DECODINGS if parity.is_fromage else GILL_DECODINGS:
        said = _say(generator, prompt, decoding)
        yield f"{key}.{decoding.name}.ids", np.array([said.ids])
        if parity.is_fromage:
            # the original's last states but one; it reads the last token too
            states = said.hidden[: len(said.ids) - 1][-3:]
            yield (
                f"{key}.{decoding.name}.emb_last",
                parity.model.retrieval_heads.embed_text(states)[None].detach().numpy(),
            )
        elif f"{key}.{decoding.name}.raw" in parity.golden:
            start = said.ids.index(generator.img_ids[0])
            img_hidden = said.hidden[None, start : start + len(generator.img_ids)]
            yield from _at_img_group(generator, f"{key}.{decoding.name}", img_hidden)


def _at_img_group(generator: GillGenerator, key: str, img_hidden_1RD: Tensor) -> Quantities:
    states = generator.image_states(img_hidden_1RD)
    assert states.conditioning is not None, "GILL draws"
    yield f"{key}.raw", states.hidden.numpy()
    yield f"{key}.ret_emb", states.queries.numpy()
    yield f"{key}.gen_emb_slice", states.conditioning[:, ::11, ::96].numpy()
    yield f"{key}.gen_emb_mean", float(states.conditioning.mean())


def _emitted(parity: ParityFolder, generator: GillGenerator, key: str, prompt: Sequence[Segment]) -> Quantities:
    factor = float(parity.golden[f"{key}.factor"])
    name = "ret_logit" if parity.is_fromage else "img0_logit"
    yield f"{key}.{name}", float(generator.next_logits([prompt])[0, generator.img_ids[0]])
    for suffix, min_tokens in (("", 0), (".min5", 5)):
        said = _say(generator, prompt, Decoding("emit", _EMIT_STEPS, min_tokens, factor))
        yield f"{key}{suffix}.ids", np.array([said.ids])


def _say(generator: GillGenerator, prompt: Sequence[Segment], decoding: Decoding) -> Decoded:
    return generator.decode([prompt], decoding.options, [0])[0]
