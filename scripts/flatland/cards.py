"""Model cards of the frozen parts, written from what the build noted and the evaluation measured."""

import json
from dataclasses import fields
from pathlib import Path

from gill.files import write_text
from gill.flatland.judge import Marks
from scripts.flatland import clip, diffusion, language, refine, retell, vae

MARKS = tuple(field.name for field in fields(Marks))
# part folder: (title, library, stages, what it is, measures shown)
PARTS = {
    "language": (
        "Flatland language model",
        "transformers",
        ("language", "retell"),
        "An `OPTForCausalLM` (4 layers, width 192, 512 positions, tied head) with its own byte-level BPE. It has read "
        "captions, stories and dialogues of the world, with captions in brackets where pictures would stand; it has "
        f"seen no picture. {language.STEPS} steps of {language.BATCH} texts, AdamW at {language.LEARNING_RATE}; the "
        f"first {language.REPEAT_ONLY_SHARE:.0%} of the steps only repeat one scene twice, which is what starts "
        f"copying from the context. Then {language.STORY_STEPS} steps on mostly stories, and {retell.STEPS} in which "
        "a third of the texts tell a bracketed caption or a listing again; those train attention alone.",
        ("lm_",),
    ),
    "clip": (
        "Flatland CLIP",
        "transformers",
        ("clip",),
        "A `CLIPModel` (width 192, 4 vision layers on 16x16 patches, 3 text layers, projection 128) with processor and "
        f"tokenizer. {clip.STEPS} steps of {clip.BATCH} pairs, AdamW at {clip.LEARNING_RATE}; after step "
        f"{clip.EASY_STEPS} half of a batch differs from the other half in one fact. Then {clip.VISION_STEPS} steps of "
        "the vision tower alone. Read-out heads, not shipped, asked the pooled picture vector and the caption states "
        "for the contents of each cell.",
        ("clip_",),
    ),
    "diffusion": (
        "Flatland diffusion model",
        "diffusers",
        ("vae", "diffusion", "refine"),
        "A `StableDiffusionPipeline`: an autoencoder to 16x16x4 latents, a UNet of 64, 96 and 160 channels with "
        f"v-prediction, and CLIP's text tower. Autoencoder: {vae.STEPS} steps of {vae.BATCH} dense pictures. UNet: "
        f"{diffusion.STEPS} steps of {diffusion.BATCH} from {diffusion.CHUNK * diffusion.NUM_CHUNKS} captioned "
        f"pictures, AdamW at {diffusion.LEARNING_RATE}; then {refine.STEPS} more on "
        f"{refine.NUM_CHUNKS * diffusion.CHUNK} new pictures at {refine.LEARNING_RATE}. Draw with "
        f"{diffusion.SAMPLING_STEPS} steps of SDE-DPM-Solver++ and guidance {diffusion.GUIDANCE}, 64x64.",
        ("vae_", "novel_", *MARKS, "clean"),
    ),
}


def write_cards(out: Path, work: Path, report: dict[str, dict[str, float]], command: str) -> None:
    """A README.md in the folder of each part that was measured.

    Args:
        out: folder of the parts.
        work: folder of the build, with STAGE/done.json.
        report: measure -> {"mean", "half", "n"}.
        command: the evaluation that gave the report.
    """
    for part, (title, library, stages, what, prefixes) in PARTS.items():
        rows = [_row(name, each) for name, each in report.items() if name.startswith(prefixes)]
        if not rows:
            continue
        notes = {stage: json.loads((work / stage / "done.json").read_text()) for stage in stages}
        card = _card(title, library, what, notes, rows, command)
        write_text(out / part / "README.md", card)


def _row(name: str, measured: dict[str, float]) -> str:
    return f"| `{name}` | {measured['mean']:.4f} ± {measured['half']:.4f} | {measured['n']} |"


def _card(
    title: str, library: str, what: str, notes: dict[str, dict[str, float]], rows: list[str], command: str
) -> str:
    seeds = ", ".join(str(note["seed"]) for note in notes.values())
    cost = "; ".join(f"{stage}: {note['seconds'] / 60:.0f} minutes" for stage, note in notes.items())
    lines = [
        "---",
        f"library_name: {library}",
        "license: apache-2.0",
        "---",
        "",
        f"# {title}",
        "",
        what,
        "",
        "- **Data**: Flatland, split `train`, made from the seed; `val`, `test` and `novel` were not seen.",
        f"- **Made by**: `python scripts/build_flatland.py --stages {' '.join(notes)}` with seed {seeds}.",
        f"- **Cost**: {cost} of training on shared CPU cores, float32.",
        "- **Stored**: float16 safetensors. Load with `dtype=torch.float32` on a CPU.",
        "- **Not for**: anything but this miniature world.",
        "",
        f"Measured with `{command}` on held-out scenes; mean with 95 % interval over n items:",
        "",
        "| measure | value | n |",
        "|---|---|---|",
        *rows,
        "",
    ]
    return "\n".join(lines)
