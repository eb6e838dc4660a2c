"""Write Flatland to disk in the file formats of CC3M, VIST, VisDial and PartiPrompts.

    python scripts/make_flatland.py --out data/flatland --size 10000 --seed 0

DIR then holds dataset/cc3m_{train,val}.tsv, data/cc3m/{training,validation}/, sis/ (stories), VisualDialog/
(dialogues), data/PartiPromptsAllDecisions.tsv (votes) and contact_sheet.png to look at. N is the number of training
pictures; there are a tenth as many of everything else. The same seed gives the same files. A run that was stopped is
continued by the same command.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tqdm import tqdm

from gill.flatland.pictures import contact_sheet, draw_batch
from gill.flatland.writer import Part, parts, training_scene, write_picture
from scripts.command import carry_out

SHEET_PICTURES, SHEET_COLUMNS = 72, 12


def main(arguments: list[str] | None = None) -> int:
    """Write everything; returns the exit status."""
    options = _parse(arguments)
    return carry_out("make_flatland", lambda: _make(options.out, options.size, options.seed))


def _make(out: Path, size: int, seed: int) -> str:
    for part in parts(out, size, seed):
        _write(part)
    first = [training_scene(index, seed) for index in range(min(size, SHEET_PICTURES))]
    write_picture(out / "contact_sheet.png", contact_sheet(draw_batch(first), SHEET_COLUMNS))
    return f"wrote {out}; look at {out / 'contact_sheet.png'}"


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="folder to write, new or unfinished")
    parser.add_argument("--size", type=int, default=10000, metavar="N", help="training pictures (default: 10000)")
    parser.add_argument("--seed", type=int, default=0, metavar="S", help="seed of the world (default: 0)")
    return parser.parse_args(arguments)


def _write(part: Part) -> None:
    rows = [part.write(index) for index in tqdm(range(part.count), desc=part.name, unit="")]
    part.finish(rows)


if __name__ == "__main__":
    sys.exit(main())
