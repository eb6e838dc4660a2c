"""Learn from examples in the prompt: texts that were answered by pictures, then a text that asks for one more.

python examples/few_shot.py runs/few_shot.png
python examples/few_shot.py runs/few_shot.png --model FOLDER --ask "a cat" \\
    --example "a dog" dog_in_watercolour.png --example "a house" house_in_watercolour.png

The file shows the pictures of the examples, what is drawn for the text alone, and what is drawn after the examples.
By default they tell a story of Flatland, whose last text says where things are and whose pictures alone say their
colours.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import gill
from examples.row import save_row
from gill.data import open_image
from gill.flatland import draw, story
from gill.models.gill import few_shot_prompt
from gill.types import GenerationOptions, Segment

STORY = story("test", 0)
AN_IMAGE = GenerationOptions(num_words=1, force_image=True, num_retrieved=0)


def main(words: list[str] | None = None) -> int:
    """Draw for one text twice, without and with examples; returns the exit status."""
    options = _parse(words)
    examples = [(text, open_image(Path(name), "example")) for text, name in options.example]
    if not examples:
        examples = [(text, draw(scene)) for text, scene in zip(STORY.texts[:-1], STORY.scenes[:-1], strict=True)]
    asked = [Segment(text=options.ask)]
    shown = [([Segment(text=text)], Segment(image=picture)) for text, picture in examples]

    generator = gill.load_gill(options.model).generator
    replies = generator.generate_batch([asked, few_shot_prompt(shown, asked)], AN_IMAGE, seeds=[0, 0])
    drawn = [part.generated[0].image for reply in replies for part in reply]

    save_row([*(picture.resize(drawn[0].size) for _, picture in examples), *drawn], options.out)
    print(f"{options.out}: {len(examples)} examples, {options.ask!r} without them, and after them")
    return 0


def _parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("out", type=Path, metavar="OUT.png")
    parser.add_argument(
        "--example", nargs=2, action="append", default=[], metavar=("TEXT", "PICTURE"), help="in place of the story's"
    )
    parser.add_argument("--ask", default=STORY.texts[-1], metavar="TEXT", help="(default: the story's last text)")
    parser.add_argument("--model", help="(default: checkpoints/gill_flatland)")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
