"""Flatland: a drawn miniature world whose every picture and sentence has known contents.

numpy and Pillow only. `python scripts/make_flatland.py` writes it in the formats of the real benchmarks.
"""

from gill.flatland.captions import all_captions, caption, caption_entropy, random_caption, read_caption
from gill.flatland.dialogues import Dialogue, Round, all_answers, dialogue, dialogue_text
from gill.flatland.documents import document
from gill.flatland.judge import Marks, compare, read_picture
from gill.flatland.pictures import draw, draw_batch
from gill.flatland.stories import Story, story
from gill.flatland.world import Scene, Thing, distinct_scenes, make_scene, scenes, split_of

__all__ = [
    "Dialogue",
    "Marks",
    "Round",
    "Scene",
    "Story",
    "Thing",
    "all_answers",
    "all_captions",
    "caption",
    "caption_entropy",
    "compare",
    "dialogue",
    "dialogue_text",
    "distinct_scenes",
    "document",
    "draw",
    "draw_batch",
    "make_scene",
    "random_caption",
    "read_caption",
    "read_picture",
    "scenes",
    "split_of",
    "story",
]
