"""CLIP similarity of what generate_visdial_images.py drew with the true pictures; kept in visdial_clip_similarity.txt.

python evals/compute_clip_similarity_visdial.py
python evals/compute_clip_similarity_visdial.py runs/visdial --clip checkpoints/flatland/clip
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from evals.harness.originals import clip_similarity


def main(words: list[str] | None = None) -> int:
    """Carry out a command line; returns the exit status."""
    return clip_similarity("gill_visdial_outputs", "visdial_clip_similarity.txt", __doc__, words)


if __name__ == "__main__":
    sys.exit(main())
