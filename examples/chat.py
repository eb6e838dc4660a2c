"""Talk about a picture in the chat template of the language model's own tokenizer (`chat_prompt`).

python examples/chat.py
python examples/chat.py --model FOLDER --picture cat.jpg --say "What is this?" "Is it asleep?"

The language model of FOLDER has to be one tuned on chats: a template is part of such a model's tokenizer. Flatland's
has read dialogues, and its template writes them as it read them.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import gill
from gill.data import open_image
from gill.flatland import dialogue, draw
from gill.models.gill import Turn, chat_prompt, ends_turns_by_newline
from gill.types import GenerationOptions, Segment

ASKED = dialogue("test", 3)
QUESTIONS = [f"{each.question}?" for each in ASKED.rounds[:4]]


def main(words: list[str] | None = None) -> int:
    """Ask one question after the other, each with all that was said before; returns the exit status."""
    options = _parse(words)
    picture = open_image(options.picture, "question") if options.picture else draw(ASKED.scene)
    generator = gill.load_gill(options.model).generator
    words_only = GenerationOptions(
        num_words=24, max_num_images=0, stop_at_newline=ends_turns_by_newline(generator.tokenizer)
    )
    turns: list[Turn] = []
    for number, question in enumerate(options.say):
        shown = [Segment(image=picture)] if number == 0 else []
        turns.append(Turn((*shown, Segment(text=question))))
        reply = generator.generate(chat_prompt(turns, generator.tokenizer), words_only, seed=0)
        said = "".join(part for part in reply if isinstance(part, str)).strip()
        turns.append(Turn((Segment(text=said),), is_reply=True))
        print(f"{question} {said}")
    return 0


def _parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--picture", type=Path, help="to talk about (default: one of Flatland)")
    parser.add_argument("--say", nargs="+", default=QUESTIONS, metavar="TEXT", help="questions, one after the other")
    parser.add_argument("--model", help="(default: checkpoints/gill_flatland)")
    return parser.parse_args(words)


if __name__ == "__main__":
    sys.exit(main())
