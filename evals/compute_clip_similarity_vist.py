"""CLIP similarity of what generate_vist_images.py drew with the true last pictures; kept in vist_clip_similarity.txt.

python evals/compute_clip_similarity_vist.py
python evals/compute_clip_similarity_vist.py runs/vist --clip checkpoints/flatland/clip
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from evals.harness.originals import clip_similarity


def main(words: list[str] | None = None) -> int:
    """Carry out a command line; returns the exit status."""
    return clip_similarity("gill_vist_outputs", "vist_clip_similarity.txt", __doc__, words)


if __name__ == "__main__":
    sys.exit(main())
