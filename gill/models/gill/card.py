"""The model card of a saved model: README.md with the hub's metadata, filled in from the model itself."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

from huggingface_hub import ModelCardData

from gill.models.gill.config import GillConfig
from gill.models.gill.encoding import is_tiny
from gill.models.gill.model import GillModel
from gill.parameters import trainable_parameters

CARD_NAME = "README.md"
_PAPERS = {
    "GILL": ("Generating Images with Multimodal Language Models", "2305.17216"),
    "FROMAGe": ("Grounding Language Models to Images for Multimodal Inputs and Outputs", "2301.13823"),
}
_TEXT = """---
{metadata}
---

# {title}

{kind} ([{paper_title}](https://arxiv.org/abs/{paper})): a frozen language model that sees images, fetches
them{draws}, with {num_trained:,} trained numbers around frozen parts.

```python
import gill

model = gill.{class_name}.from_pretrained("{name}")
model.generate_for_images_and_texts(["a picture of a cat"], num_words=32)
```

## Frozen parts

| part | where it is from |
|---|---|
{parts}

## What was trained

| part | numbers |
|---|---|
{weights}

Weights are safetensors, settings are `model.json`; nothing here executes code when it is loaded.

## Training data, results, limits

Not filled in. Say what it was trained on and with which command, what it scores and how that was measured, and what it
is not for: a model of this kind repeats the biases of its frozen parts, and of the pictures it may fetch.
"""


def write_model_card(folder: Path, model: GillModel, config: GillConfig, name: str) -> Path:
    """Write README.md beside a saved model.

    Args:
        config: as saved, so that it names the parts as the folder does.
        name: of the folder, or of the repository it will be in.
    """
    kind = "GILL" if config.has_mapper else "FROMAGe"
    paper_title, paper = _PAPERS[kind]
    named = {"language": config.language, "vision": config.vision, "diffusion": config.diffusion}
    sizes: Counter[str] = Counter()
    for weight_name, weight in trainable_parameters(model).items():
        sizes[weight_name.partition(".")[0]] += weight.numel()
    text = _TEXT.format(
        metadata=_metadata(list(named.values()), kind, paper),
        title=name.rpartition("/")[2],
        kind=kind,
        class_name=kind.capitalize(),
        name=name,
        draws=" and draws new ones" if config.has_mapper else "",
        num_trained=sizes.total(),
        paper_title=paper_title,
        paper=paper,
        parts="\n".join(f"| {part} | {_origin(place, part)} |" for part, place in named.items() if place),
        weights="\n".join(f"| `{part}` | {size:,} |" for part, size in sizes.items()),
    )
    (folder / CARD_NAME).write_text(text, encoding="utf-8")
    return folder / CARD_NAME


def _metadata(names: list[str], kind: str, paper: str) -> str:
    on_hub = [name for name in names if name and _is_on_hub(name)]
    tags = [kind.lower(), "multimodal", f"arxiv:{paper}"]
    data = ModelCardData(library_name="gill", pipeline_tag="any-to-any", base_model=on_hub or None, tags=tags)
    return data.to_yaml().strip()


def _is_on_hub(name: str) -> bool:
    return not is_tiny(name) and not Path(name).is_absolute() and name.count("/") == 1 and not Path(name).exists()


def _origin(name: str, part: str) -> str:
    if _is_on_hub(name):
        return f"[{name}](https://huggingface.co/{name})"
    if name == part:
        return f"in this repository, `{part}/`"
    return "random and tiny, for tests" if is_tiny(name) else f"`{name}`, a folder of the machine that saved the model"
