"""Draw the last picture of every VIST story from its five texts and four pictures, as the original script does.

    python evals/generate_vist_images.py gill_vist_outputs
    python evals/generate_vist_images.py runs/vist --data data/flatland/sis --model checkpoints/gill_flatland

Every option of `evals/generate.py` may follow, `--protocol paper` among them.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from evals.harness.originals import generate_images


def main(words: list[str] | None = None) -> int:
    """Carry out a command line; returns the exit status."""
    return generate_images("vist-generation", "sis", __doc__, words)


if __name__ == "__main__":
    sys.exit(main())
