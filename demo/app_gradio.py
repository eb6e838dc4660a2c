"""Chat with a trained model in the browser: words and pictures in, words and pictures out.

    python demo/app_gradio.py                                    # Flatland's model, http://127.0.0.1:7860
    python demo/app_gradio.py --model runs/flatland/model        # one of your own
    python demo/app_gradio.py --model checkpoints/gill_opt --allow-network   # released weights; fetches by address

A FROMAGe of Flatland, which fetches and does not draw, is trained in as many steps as `make train` takes for GILL, and
then given pictures to fetch:

    python main.py --preset fromage-flatland --exp-name fromage_flatland --workers 1
    python scripts/extract_img_embs.py checkpoints/gill_flatland/index/pictures.zip \\
        runs/fromage_flatland/model/index --model runs/fromage_flatland/model
    python demo/app_gradio.py --model runs/fromage_flatland/model --image-folder checkpoints/gill_flatland/index

A folder holds a saved or released GILL or FROMAGe, and beside it, where they are wanted, an index to retrieve from
and a decision head. The page is for this machine alone, reports to nobody, and needs no network.

"image frequency" is added to the score of an image at every word: +2 multiplies the odds of an image by e^2 = 7.
"""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))


def main(words: list[str] | None = None) -> int:
    """Load the model and serve the page until it is interrupted; returns the exit status."""
    options = _parse(words)
    _keep_libraries_quiet(options.allow_network)

    from demo.serving import serve  # libraries read the environment when they are imported
    from gill.errors import GillError

    try:
        serve(options)
    except (GillError, OSError) as error:
        print(f"app_gradio: {error}", file=sys.stderr)
        return 2
    return 0


def _parse(words: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    default = ROOT / "checkpoints" / "gill_flatland"
    add("--model", type=Path, default=default, metavar="DIR", help="(default: checkpoints/gill_flatland)")
    add("--device", help="cpu, cuda, ... (default: an accelerator where there is one)")
    add("--dtype", choices=("float32", "bfloat16"), help="of the frozen parts (default: as trained)")
    add("--quantization", choices=("8bit", "4bit"), default="", help="of the language model; needs bitsandbytes")
    add("--search", choices=("exact", "faiss"), default="exact", help="faiss for many millions of pictures")
    add("--image-folder", type=Path, action="append", default=[], metavar="DIR", help="of the index's pictures")
    add("--no-retrieval", action="store_true", help="leave the index out: every image is drawn")
    add("--allow-network", action="store_true", help="fetch pictures by address, and frozen parts by name")
    add("--port", type=int, help="(default: the first free one from 7860 on)")
    add("--messages-per-minute", type=int, default=30, metavar="N", help="of one caller (default: 30)")
    add("--open", action="store_true", help="open the page in a browser")
    options = parser.parse_args(words)
    if options.messages_per_minute < 1:
        parser.error("--messages-per-minute must be at least 1")
    return options


def _keep_libraries_quiet(allow_network: bool) -> None:
    os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
    os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    if not allow_network:
        os.environ["HF_HUB_OFFLINE"] = "1"


if __name__ == "__main__":
    sys.exit(main())
