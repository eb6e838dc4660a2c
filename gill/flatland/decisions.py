"""Prompts for the retrieve-or-generate decision, with five votes each, and the rule behind the votes.

A voter prefers retrieval ("ret") when some stored picture shows exactly what the prompt asks for, and generation
("gen") when none does. Each voter errs now and then, as people do.
"""

from dataclasses import dataclass
from random import Random

from gill.flatland.captions import caption
from gill.flatland.world import Scene, item_rng, sample_scene

NUM_VOTES = 5
# Chance of each vote given what the stored pictures hold: the right one, "same", the wrong one.
VOTE_SHARES = (0.84, 0.1, 0.06)
NOVEL_SHARE, STORED_SHARE = 0.4, 0.5


@dataclass(frozen=True)
class Decision:
    """A prompt, the scene it asks for, whether a stored picture shows it, and the votes."""

    prompt: str
    scene: Scene
    is_stored: bool
    votes: tuple[str, ...]


def decision(index: int, stored: list[Scene], contents: frozenset[Scene], seed: int = 0) -> Decision:
    """Prompt number `index`.

    Args:
        index: number of the prompt.
        stored: the stored pictures' scenes, of which half of the prompts ask for one.
        contents: the same without offsets, for looking up.
        seed: of the world.

    Four in ten prompts name a pair that no stored picture has; the rest is any training scene.
    """
    rng = item_rng(seed, "test", "decision", index)
    scene = _asked_scene(rng, stored)
    is_stored = scene.content() in contents
    right, wrong = ("ret", "gen") if is_stored else ("gen", "ret")
    votes = tuple(rng.choices((right, "same", wrong), VOTE_SHARES, k=NUM_VOTES))
    return Decision(caption(scene, template=2), scene, is_stored, votes)


def _asked_scene(rng: Random, stored: list[Scene]) -> Scene:
    kind = rng.random()
    if kind < NOVEL_SHARE:
        return sample_scene(rng, "novel")
    return rng.choice(stored) if kind < NOVEL_SHARE + STORED_SHARE else sample_scene(rng, "train")
