"""GILL (Koh et al. 2023, arXiv:2305.17216) and FROMAGe (arXiv:2301.13823)."""

from gill._torchvision import define_missing_torchvision_ops

define_missing_torchvision_ops()

from gill.models.gill.assembly import LazyDrawer, load_generator
from gill.models.gill.checkpoint import (
    export_released,
    load_weights,
    read_card,
    save_model,
)
from gill.models.gill.compat import Gill, load_gill
from gill.models.gill.config import DEFAULT_DIFFUSION, PRESETS, GillConfig, Preset, find_preset
from gill.models.gill.conversation import (
    Turn,
    chat_prompt,
    dialogue_prompt,
    ends_turns_by_newline,
    few_shot_prompt,
)
from gill.models.gill.decision import load_decision, save_decision
from gill.models.gill.encoding import GillEncoder, GillTokenizer, load_encoder, load_tokenizer
from gill.models.gill.family import GillFamily
from gill.models.gill.fromage import Fromage, load_fromage
from gill.models.gill.generator import Decoded, GillGenerator
from gill.models.gill.illustrator import GillIllustrator
from gill.models.gill.loading import Backbones, build, build_model, load_backbones, load_model
from gill.models.gill.model import GillModel
from gill.models.gill.pretrained import Pretrained, find_folder
from gill.models.gill.reading import GillReader, ImageStates
from gill.models.gill.released import read_decision, read_released, write_decision, write_released
from gill.models.gill.sequence import TokenRows, Vocabulary
from gill.models.gill.task import GillTask
from gill.models.gill.trained import (
    Trained,
    load_trained,
    located,
    read_trained,
    write_trained,
    write_trained_as_released,
)
from gill.models.gill.whitening import WHITENING_NAME

FAMILY = GillFamily()

__all__ = [
    "DEFAULT_DIFFUSION",
    "FAMILY",
    "PRESETS",
    "WHITENING_NAME",
    "Backbones",
    "Decoded",
    "Fromage",
    "Gill",
    "GillConfig",
    "GillEncoder",
    "GillFamily",
    "GillGenerator",
    "GillIllustrator",
    "GillModel",
    "GillReader",
    "GillTask",
    "GillTokenizer",
    "ImageStates",
    "LazyDrawer",
    "Preset",
    "Pretrained",
    "TokenRows",
    "Trained",
    "Turn",
    "Vocabulary",
    "build",
    "build_model",
    "chat_prompt",
    "dialogue_prompt",
    "ends_turns_by_newline",
    "export_released",
    "few_shot_prompt",
    "find_folder",
    "find_preset",
    "load_backbones",
    "load_decision",
    "load_encoder",
    "load_fromage",
    "load_generator",
    "load_gill",
    "load_model",
    "load_tokenizer",
    "load_trained",
    "load_weights",
    "located",
    "read_card",
    "read_decision",
    "read_released",
    "read_trained",
    "save_decision",
    "save_model",
    "write_decision",
    "write_released",
    "write_trained",
    "write_trained_as_released",
]
