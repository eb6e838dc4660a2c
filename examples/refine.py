"""Ask for a picture, then change it: each turn goes back into the prompt, and the new picture is drawn from all of it.

python examples/refine.py runs/refined.png
python examples/refine.py runs/refined.png --say "a big red box at the top left of the sea." "the box is blue."
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from PIL import Image

import gill
from examples.row import save_row
from gill.models.gill import Turn, dialogue_prompt
from gill.types import GenerationOptions, ImageOutput, Segment

SAID = ("a big red star at the top left of the field.", "a big blue star at the top left of the snow.")


def main(words: list[str] | None = None) -> int:
    """Draw one picture a turn, side by side in a file; returns the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT.png")
    parser.add_argument("--say", nargs="+", default=SAID, metavar="TEXT", help="what is asked for, turn by turn")
    parser.add_argument("--model", help="(default: checkpoints/gill_flatland)")
    options = parser.parse_args(words)
    generator = gill.load_gill(options.model, load_ret_embs=False).generator
    turns: list[Turn] = []
    pictures: list[Image.Image] = []
    for text in options.say:
        turns.append(Turn((Segment(text=text),)))
        reply = generator.generate(dialogue_prompt(turns), GenerationOptions(num_words=2, force_image=True), seed=0)
        drawn = next(part.generated[0].image for part in reply if isinstance(part, ImageOutput))
        turns.append(Turn((Segment(image=drawn),), is_reply=True))
        pictures.append(drawn)
    save_row(pictures, options.out)
    print(f"{options.out}: {len(pictures)} pictures")
    return 0


if __name__ == "__main__":
    sys.exit(main())
