"""Settings of the GILL family. FROMAGe is the same family with one token, no conditioning and its own weights.

Widths are never settings: they are read from the backbones.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from gill.config import Recipe, require_in_range, require_known
from gill.errors import ConfigError
from gill.mappers import MAPPERS
from gill.objectives import CONDITIONING_DISTANCES

DTYPES = ("float32", "bfloat16", "float64")
# Every mask is of four dimensions: flash attention, which takes none, would let pictures and texts see each other.
ATTENTIONS = ("sdpa", "eager")
IMG_LOGIT_RULES = ("absolute", "product")
# Stable Diffusion 1.5, which the paper draws with; the originals' name for it, runwayml/..., is gone from the hub.
DEFAULT_DIFFUSION = "stable-diffusion-v1-5/stable-diffusion-v1-5"


@dataclass(frozen=True)
class GillConfig:
    """A model of the family.

    Attributes:
        language, vision: hub names, local folders, or "tiny" ("tiny:llama" picks a family of `backbones.tiny`).
        diffusion: the pipeline that draws, and whose text encoder makes the conditioning targets; "" does neither.
        stores_targets: the targets come with the data instead, and the pipeline only draws.
        num_img_tokens: R. num_visual_tokens: V a picture. retrieval_width: E.
        img_token_name: "[IMG{}]", numbered from 0, or one name for R = 1.
        img_words: words whose embeddings the rows of [IMG1] ... start from, in this order; the other rows start from
            N(0, 0.02), as all do in GILL.
        visual_words: words that every picture's first visual tokens start as, until training tells pictures apart; ""
            starts from a random map, as in GILL.
        whitening: safetensors file of `scripts/whiten_features.py`: visual tokens are made of features whose directions
            are all equally long, so that rare ones are learned as fast; "" takes features as they are, as GILL.
        mapper: one of `gill.mappers.MAPPERS`; mapper_width, mapper_layers, mapper_heads: its Transformer.
        conditioning_length, conditioning_width: L and C; None reads them from the diffusion model.
        image_size: side of the pictures in pixels, to be compared with the vision tower's; None takes the tower's.
        conditioning_distance: one of `gill.objectives.CONDITIONING_DISTANCES`.
        captioning_weight, text_weight, contrastive_weight, conditioning_weight: of the objectives; a conditioning
            weight of 0 leaves the mapper out of the model.
        joins_text: paired texts are read as one sequence in the text pass too, not only when captioning.
        drops_second_bos: of two joined texts the second loses its beginning of sequence.
        image_brackets: what stands before and after every picture, e.g. ("(", ")"); () is nothing.
        stop_words: words, each of one token, at which a reply is over and which it does not show; beside the end of
            sequence and, where it is asked for, the end of a line.
        input_prefix: words before every text, without a beginning of sequence of their own.
        text_dropout, image_dropout: behind the retrieval heads and the visual prefix.
        temperature: initial contrastive temperature; the logit scale is exp of -log of it.
        rescales_img_rows: after every update [IMG] rows get the mean norm of the frozen rows.
        img_logit_rule: how `img_logit_scale` acts at generation: "absolute" = |logit| x factor when factor > 1 (GILL),
            "product" = logit x factor (FROMAGe).
        frozen_dtype: of the backbones; what trains is always float32 (float64 with "float64").
        attention: "sdpa" or "eager", of the backbones.
    """

    language: str = "facebook/opt-6.7b"
    vision: str = "openai/clip-vit-large-patch14"
    diffusion: str = DEFAULT_DIFFUSION
    stores_targets: bool = False
    num_img_tokens: int = 8
    num_visual_tokens: int = 4
    retrieval_width: int = 256
    img_token_name: str = "[IMG{}]"
    img_words: str = ""
    visual_words: str = ""
    whitening: str = ""
    mapper: str = "gill_mapper"
    mapper_width: int = 512
    mapper_layers: int = 4
    mapper_heads: int = 4
    conditioning_length: int | None = None
    conditioning_width: int | None = None
    conditioning_distance: str = "euclidean"
    captioning_weight: float = 1.0
    text_weight: float = 1.0
    contrastive_weight: float = 1.0
    conditioning_weight: float = 1.0
    joins_text: bool = True
    drops_second_bos: bool = True
    image_brackets: tuple[str, ...] = ()
    stop_words: str = ""
    input_prefix: str = ""
    text_dropout: float = 0.0
    image_dropout: float = 0.0
    temperature: float = 0.07
    rescales_img_rows: bool = True
    img_logit_rule: str = "absolute"
    frozen_dtype: str = "float32"
    attention: str = "sdpa"
    image_size: int | None = None

    def __post_init__(self) -> None:
        require_known("mapper", self.mapper, MAPPERS)
        require_known("conditioning_distance", self.conditioning_distance, CONDITIONING_DISTANCES)
        require_known("frozen_dtype", self.frozen_dtype, DTYPES)
        require_known("attention", self.attention, ATTENTIONS)
        require_known("img_logit_rule", self.img_logit_rule, IMG_LOGIT_RULES)
        require_in_range("text_dropout", self.text_dropout, 0, 1)
        require_in_range("image_dropout", self.image_dropout, 0, 1)
        for name in (
            "num_img_tokens",
            "num_visual_tokens",
            "retrieval_width",
            "mapper_width",
            "mapper_layers",
            "mapper_heads",
            "temperature",
        ):
            if getattr(self, name) <= 0:
                raise ConfigError(f"{name} must be above 0, got {getattr(self, name)}")
        if len(self.image_brackets) not in (0, 2):
            raise ConfigError(f"image_brackets is empty or two texts, got {self.image_brackets}")
        if self.num_img_tokens > 1 and "{}" not in self.img_token_name:
            raise ConfigError(
                f"img_token_name={self.img_token_name!r} names one token, num_img_tokens is {self.num_img_tokens}"
            )

    @property
    def img_token_names(self) -> list[str]:
        """The R names, in order."""
        return [self.img_token_name.format(number) for number in range(self.num_img_tokens)]

    @property
    def has_mapper(self) -> bool:
        """Whether the model draws."""
        return self.conditioning_weight > 0

    @property
    def makes_targets(self) -> bool:
        """Whether the diffusion model's text encoder makes the conditioning targets."""
        return self.has_mapper and bool(self.diffusion) and not self.stores_targets

    @property
    def stored_target_shape(self) -> tuple[int, int] | None:
        """(L, C) of conditioning targets that the data must hold; None when computed, not needed or of unknown size."""
        shape = (self.conditioning_length, self.conditioning_width)
        if self.makes_targets or not self.has_mapper or shape[0] is None or shape[1] is None:
            return None
        return shape[0], shape[1]


@dataclass(frozen=True)
class Preset:
    """A model and how it is trained."""

    model: GillConfig
    recipe: Recipe


_FROMAGE = GillConfig(
    diffusion="",
    num_img_tokens=1,
    num_visual_tokens=1,
    img_token_name="[RET]",
    conditioning_weight=0.0,
    joins_text=False,
    drops_second_bos=False,
    img_logit_rule="product",
    frozen_dtype="bfloat16",
)
_FROMAGE_RECIPE = Recipe(
    learning_rate=3e-4, weight_decay=0.0, warmup_steps=100, decay_epochs=10, batch_size=180, max_tokens=24
)
_CAPTION_WORDS = " a big red star at the top left and a small blue ring at the bottom right of the"
# A listing (gill.flatland.documents) of a scene: what a linear map can say of each cell stands at one place.
_LISTING_WORDS = " sea big red star top left sea sea sea top right sea sea sea bottom left small blue ring bottom right"
_FLATLAND = GillConfig(
    "checkpoints/flatland/language",
    "checkpoints/flatland/clip",
    "checkpoints/flatland/diffusion",
    num_img_tokens=21,
    img_words=" (" + _CAPTION_WORDS,
    num_visual_tokens=21,
    visual_words=_LISTING_WORDS,
    whitening="checkpoints/flatland/whitening.safetensors",
    mapper_width=192,
    mapper_layers=1,
    image_brackets=("[", "]"),
    stop_words="( )",
)
_FLATLAND_RECIPE = Recipe(
    learning_rate=1e-3,
    token_rate=20.0,
    warmup_steps=80,
    decay="linear",
    num_epochs=5,
    steps_per_epoch=220,
    batch_size=32,
    pair_probability=0.0,
    max_tokens=256,
)


PRESETS = {
    # every part random and tiny, no files: seconds on a CPU
    "debug": Preset(
        GillConfig(
            "tiny",
            "tiny",
            "tiny",
            num_img_tokens=4,
            num_visual_tokens=2,
            retrieval_width=16,
            mapper_width=32,
            mapper_layers=1,
        ),
        Recipe(num_epochs=1, steps_per_epoch=2, batch_size=4, warmup_steps=1, max_tokens=64),
    ),
    # the miniature world: all frozen parts are local folders, minutes on a CPU
    "flatland": Preset(_FLATLAND, _FLATLAND_RECIPE),
    "fromage-flatland": Preset(
        replace(
            _FROMAGE,
            language=_FLATLAND.language,
            vision=_FLATLAND.vision,
            num_visual_tokens=_FLATLAND.num_visual_tokens,
            visual_words=_FLATLAND.visual_words,
            whitening=_FLATLAND.whitening,
            image_brackets=_FLATLAND.image_brackets,
            stop_words=_FLATLAND.stop_words,
            frozen_dtype="float32",
        ),
        _FLATLAND_RECIPE,
    ),
    # the paper's model, as released
    "gill-opt-6.7b": Preset(GillConfig(frozen_dtype="bfloat16"), Recipe()),
    # the same around larger language models; add `--set shard_language=true` where one does not fit a GPU
    "gill-opt-13b": Preset(GillConfig("facebook/opt-13b", frozen_dtype="bfloat16"), Recipe()),
    "gill-opt-30b": Preset(GillConfig("facebook/opt-30b", frozen_dtype="bfloat16"), Recipe()),
    # the same on a CPU
    "gill-opt-125m-cpu": Preset(
        GillConfig("facebook/opt-125m", "openai/clip-vit-base-patch16"), Recipe(batch_size=16, warmup_steps=200)
    ),
    # FROMAGe (arXiv:2301.13823) with one and with four visual tokens, as released
    "fromage": Preset(_FROMAGE, _FROMAGE_RECIPE),
    "fromage-vis4": Preset(replace(_FROMAGE, num_visual_tokens=4), _FROMAGE_RECIPE),
}


def find_preset(name: str) -> Preset:
    """A preset by name.

    Raises:
        UnknownNameError: no such preset; the message names the nearest.
    """
    require_known("preset", name, PRESETS)
    return PRESETS[name]
