"""Stage `clip`: a CLIPModel trained on pictures and captions with hard negatives.

Half of a batch are neighbours that differ from another item in one fact (a colour, a shape, a size, a cell, two colours
exchanged), so that the embedding must hold every fact. Read-out heads, thrown away afterwards, ask the pooled picture
vector and the caption's token states for the contents of each cell: the vector is what the language model will see of
a picture, and the token states are what the diffusion model is conditioned on.

Retrieval is near perfect long before the pooled vector tells shapes (the other facts identify a picture), so a second
phase locks the text tower and trains the vision tower on, with a linear read-out (LiT, arXiv:2111.07991).
"""

from typing import TypeVar

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import CLIPConfig, CLIPImageProcessor, CLIPModel, CLIPTextModel, CLIPTokenizer

from gill.flatland.captions import random_caption
from gill.flatland.neighbours import neighbour
from gill.flatland.pictures import draw_batch
from gill.flatland.world import (
    CELLS,
    COLOURS,
    PLACES,
    SHAPES,
    SIZES,
    Scene,
    item_rng,
    sample_scene,
)
from scripts.flatland.common import BuildContext, Training, half_on_cpu, to_pixels

STEPS, BATCH, LEARNING_RATE = 700, 192, 1e-3
VISION_STEPS = 700
WARMUP = 60
T = TypeVar("T", bound=nn.Module)
EASY_STEPS = 100
WIDTH, HEADS, TEXT_LAYERS, VISION_LAYERS, PROJECTION = 192, 6, 3, 4, 128
READ_OUT_WEIGHT = 0.5
MAX_LOGIT_SCALE = 4.6052  # ln 100, as in CLIP
# Classes of each fact, in the order of `facts_of`; 0 is "nothing here".
FACT_SIZES = [len(SHAPES) + 1, len(COLOURS) + 1, len(SIZES) + 1] * len(CELLS) + [len(PLACES)]


def new_clip(tokenizer: CLIPTokenizer) -> CLIPModel:
    """An untrained CLIP: 64x64 pictures in 16 patches, captions of at most 40 tokens, 3.4 M parameters."""
    tower = {"hidden_size": WIDTH, "intermediate_size": 4 * WIDTH, "num_attention_heads": HEADS}
    text = tower | {
        "vocab_size": len(tokenizer),
        "num_hidden_layers": TEXT_LAYERS,
        "max_position_embeddings": tokenizer.model_max_length,
        "bos_token_id": tokenizer.bos_token_id,
        "eos_token_id": tokenizer.eos_token_id,
        "pad_token_id": tokenizer.pad_token_id,
    }
    vision = tower | {"num_hidden_layers": VISION_LAYERS, "image_size": 64, "patch_size": 16}
    config = CLIPConfig(text_config=text, vision_config=vision, projection_dim=PROJECTION)
    return CLIPModel(config)


def image_processor() -> CLIPImageProcessor:
    """64x64, mean and deviation one half."""
    return CLIPImageProcessor(
        size={"shortest_edge": 64},
        crop_size={"height": 64, "width": 64},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )


class ReadOut(nn.Module):
    """Asks states for the contents of the four cells and the place.

    float[B, T, width] -> logits of every fact, int targets from `facts`. One learned query for each cell and one for
    the place, one layer of attention.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.queries = nn.Parameter(torch.randn(len(CELLS) + 1, width) * 0.02)
        self.attention = nn.MultiheadAttention(width, HEADS, batch_first=True)
        self.heads = nn.ModuleList(
            nn.Linear(width, size) for size in (len(SHAPES) + 1, len(COLOURS) + 1, len(SIZES) + 1)
        )
        self.place = nn.Linear(width, len(PLACES))

    def loss(self, states: Tensor, facts: Tensor) -> Tensor:
        """Mean cross entropy of 13 facts: shape, colour and size of each cell, and the place.

        Args:
            states: float[B, T, width].
            facts: int64[B, 13], as `facts_of` gives them.
        """
        queries = self.queries.expand(len(states), -1, -1)
        answers = self.attention(queries, states, states, need_weights=False)[0]
        per_cell = [
            F.cross_entropy(head(answers[:, :-1]).flatten(0, 1), facts[:, kind:12:3].flatten())
            for kind, head in enumerate(self.heads)
        ]
        place = F.cross_entropy(self.place(answers[:, -1]), facts[:, 12])
        return (sum(per_cell) * len(CELLS) + place) / (3 * len(CELLS) + 1)


class ClipTrainer(nn.Module):
    """CLIP and the two read-out heads, so that one optimiser and one saved state hold them all."""

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.clip = clip
        self.vision_read_out, self.text_read_out = ReadOut(WIDTH), ReadOut(WIDTH)
        # The pooled picture vector is one state; each of these views of it is one "token" for the read-out.
        self.views = nn.Linear(WIDTH, 8 * WIDTH)

    def forward(self, pixels: Tensor, tokens: Tensor, same: Tensor, facts: Tensor) -> dict[str, Tensor]:
        """InfoNCE in both directions plus the read-outs.

        Args:
            pixels: float[B, 3, 64, 64] in -1..1.
            tokens: int64[B, T].
            same: bool[B, B], True where two different items have the same content: not negatives.
            facts: int64[B, 13].
        """
        vision = self.clip.vision_model(pixel_values=pixels).pooler_output
        text = self.clip.text_model(input_ids=tokens)
        text_BE, image_BE = self.clip.text_projection(text.pooler_output), self.clip.visual_projection(vision)
        contrast = contrastive(self.clip, text_BE, image_BE, same)
        see = self.vision_read_out.loss(self.views(vision).unflatten(1, (8, WIDTH)), facts)
        read = self.text_read_out.loss(text.last_hidden_state, facts)
        loss = contrast + READ_OUT_WEIGHT * (see + read)
        return {"loss": loss, "contrast": contrast, "read_picture": see, "read_caption": read}


class VisionTrainer(nn.Module):
    """The second phase: CLIP with its text side locked, and a linear head on the pooled picture vector."""

    def __init__(self, clip: CLIPModel) -> None:
        super().__init__()
        self.clip = clip
        for part in (clip.text_model, clip.text_projection):
            part.requires_grad_(False)
        clip.logit_scale.requires_grad_(False)
        self.head = nn.Linear(WIDTH, sum(FACT_SIZES))

    def forward(self, pixels: Tensor, tokens: Tensor, same: Tensor, facts: Tensor) -> dict[str, Tensor]:
        """InfoNCE against the locked captions plus the mean cross entropy of the 13 facts."""
        vision = self.clip.vision_model(pixel_values=pixels).pooler_output
        with torch.no_grad():
            text = self.clip.text_projection(self.clip.text_model(input_ids=tokens).pooler_output)
        contrast = contrastive(self.clip, text, self.clip.visual_projection(vision), same)
        logits = self.head(vision).split(FACT_SIZES, dim=1)
        see = torch.stack([F.cross_entropy(each, facts[:, index]) for index, each in enumerate(logits)]).mean()
        return {"loss": contrast + see, "contrast": contrast, "read_picture": see}


def contrastive(clip: CLIPModel, text_BE: Tensor, image_BE: Tensor, same: Tensor) -> Tensor:
    """Symmetric InfoNCE of projected captions and pictures; items of the same content are no negatives."""
    text_BE, image_BE = F.normalize(text_BE, dim=-1), F.normalize(image_BE, dim=-1)
    logits_BB = clip.logit_scale.clamp(max=MAX_LOGIT_SCALE).exp() * text_BE @ image_BE.T
    logits_BB = logits_BB.masked_fill(same, -1e4)
    pair_B = torch.arange(len(text_BE), device=text_BE.device)
    return (F.cross_entropy(logits_BB, pair_B) + F.cross_entropy(logits_BB.T, pair_B)) / 2


def facts_of(scene: Scene) -> list[int]:
    """13 numbers: shape, colour and size of each cell (0 where it is empty), and the place."""
    facts = []
    for cell in CELLS:
        thing = scene.thing_at(cell)
        facts += (
            [0, 0, 0]
            if thing is None
            else [SHAPES.index(thing.shape) + 1, COLOURS.index(thing.colour) + 1, SIZES.index(thing.size) + 1]
        )
    return [*facts, PLACES.index(scene.place)]


def training_scenes(seed: int, step: int, count: int) -> list[Scene]:
    """The scenes of one step: after the first steps, half of them are neighbours of the other half."""
    rng = item_rng(seed, "train", "clip", step)
    if step < EASY_STEPS:
        return [sample_scene(rng, "train") for _ in range(count)]
    found = [sample_scene(rng, "train") for _ in range(count // 2)]
    return found + [neighbour(rng, scene, "train") for scene in found]


def batch(tokenizer: CLIPTokenizer, seed: int, step: int, device: torch.device) -> tuple[Tensor, ...]:
    """(pixels, tokens, same, facts) of one step."""
    rng = item_rng(seed, "train", "clip-caption", step)
    found = training_scenes(seed, step, BATCH)
    texts = [random_caption(rng, scene) for scene in found]
    tokens = tokenizer(texts, padding=True, return_tensors="pt").input_ids
    facts = torch.tensor([facts_of(scene) for scene in found])
    same = (facts[:, None] == facts[None]).all(-1) & ~torch.eye(len(facts), dtype=torch.bool)
    pixels = to_pixels(draw_batch(found), device)
    return pixels, tokens.to(device), same.to(device), facts.to(device)


def build(context: BuildContext) -> dict[str, float]:
    """Train both towers, then the vision tower alone; write `clip`, and its text tower for the diffusion model."""
    torch.manual_seed(context.seed)
    tokenizer = CLIPTokenizer.from_pretrained(context.out / "clip")
    trainer = ClipTrainer(new_clip(tokenizer)).to(context.device)
    first = _training("clip", trainer, tokenizer, context, STEPS, 0)
    torch.manual_seed(context.seed)
    vision_trainer = VisionTrainer(first.run(context).clip).to(context.device)
    second = _training("clip_vision", vision_trainer, tokenizer, context, VISION_STEPS, STEPS)
    half_on_cpu(second.run(context).clip).save_pretrained(context.out / "clip")
    image_processor().save_pretrained(context.out / "clip")
    text_encoder = CLIPTextModel.from_pretrained(context.out / "clip", dtype=torch.float16)
    text_encoder.save_pretrained(context.out / "diffusion" / "text_encoder")
    return {
        "steps": first.steps,
        "vision_steps": second.steps,
        "batch": BATCH,
        "seconds": first.seconds + second.seconds,
    }


def _training(
    name: str, trainer: T, tokenizer: CLIPTokenizer, context: BuildContext, steps: int, first_batch: int
) -> Training[T]:
    return Training(
        name,
        trainer,
        lambda step: trainer(*batch(tokenizer, context.seed, first_batch + step, context.device)),
        context.steps(steps),
        LEARNING_RATE,
        weight_decay=0.02,
        warmup=WARMUP,
        ema_decay=0.98,
    )
