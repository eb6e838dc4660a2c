"""Draw the picture of every VisDial dialogue after its ten rounds, as the original script does.

    python evals/generate_visdial_images.py gill_visdial_outputs
    python evals/generate_visdial_images.py runs/visdial --data data/flatland/VisualDialog \\
        --model checkpoints/gill_flatland

Every option of `evals/generate.py` may follow, `--context 5` among them.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from evals.harness.originals import generate_images


def main(words: list[str] | None = None) -> int:
    """Carry out a command line; returns the exit status."""
    return generate_images("visdial-generation", "VisualDialog", __doc__, words)


if __name__ == "__main__":
    sys.exit(main())
