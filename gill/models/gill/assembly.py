"""Put a generator together from a folder: the model, and what lies beside it for answering.

A folder is one of ours (model.json) or a released one (model_args.json). Beside the model may lie a decision head
(decision.safetensors, or the original's decision_model.pth.tar), an index to retrieve from (index/, or the originals'
cc3m*.npy and cc3m*.pkl, which are turned into one), and the pictures it names.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import Tensor

from gill.backbones import SCHEDULERS, Clip, load_drawer, tiny_drawer
from gill.config import require_known
from gill.errors import CheckpointError
from gill.mappers import DecisionHead
from gill.models.gill.config import GillConfig
from gill.models.gill.decision import DECISION_WEIGHTS, load_decision
from gill.models.gill.encoding import is_tiny, load_transform
from gill.models.gill.generator import GillGenerator
from gill.models.gill.model import GillModel
from gill.models.gill.released import read_decision
from gill.models.gill.trained import load_trained
from gill.retrieval import MANIFEST_NAME, PictureFetcher, RetrievalIndex, check_imported, fingerprint, import_released
from gill.types import Drawer

INDEX_FOLDER = "index"
_RELEASED_EMBEDDINGS = ("cc3m*.npy", "cc3m*.pkl")
_log = logging.getLogger(__name__)


def load_generator(
    folder: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype | None = None,
    quantization: str = "",
    has_index: bool = True,
    decision_name: str | None = None,
    image_folders: Sequence[Path] = (),
    allow_network: bool = False,
    changes: Mapping[str, Any] | None = None,
    search: str = "exact",
    scheduler: str | None = None,
    ranking_clip: str | None = None,
) -> GillGenerator:
    """A generator with all that lies in `folder`; the diffusion model is loaded when the first picture is drawn.

    Args:
        folder: a saved or released model, or a training run.
        dtype: of the frozen parts; None takes the one the model was trained with.
        quantization: "8bit" or "4bit" loads the language model so, through bitsandbytes.
        has_index: False leaves retrieval out, so that every image is drawn.
        decision_name: file of an original's decision head, used where the folder has no `decision.safetensors`.
        image_folders: where the index's pictures lie, beside the model's and the index's own folders.
        allow_network: fetch pictures that the index names by address.
        changes: settings to replace, such as {"diffusion": "where/it/lies"}.
        search: "exact", or "faiss" for approximate search of many millions of pictures.
        scheduler: of the diffusion model, one of `gill.backbones.SCHEDULERS`; None keeps its own.
        ranking_clip: a whole CLIP, by hub name or folder, that chooses among drawn candidates by the words before the
            image; None compares them with the query in the retrieval space.

    Raises:
        MissingCheckpointError: no model there; CheckpointError: parts that do not fit together.
        ConfigError: frozen parts that cannot be loaded, an index of another model, or a name that is not known.
    """
    if dtype is not None:
        changes = {**(changes or {}), "frozen_dtype": str(dtype).removeprefix("torch.")}
    model, tokenizer = load_trained(folder, device, changes, quantization, has_targets=False)
    index = _open_index(folder, model, search) if has_index else None
    roots = [*image_folders, folder, folder / INDEX_FOLDER]
    return GillGenerator(
        model,
        tokenizer,
        load_transform(model.config),
        index,
        None if index is None else PictureFetcher(roots, allow_network),
        _drawer(model.config, device, scheduler),
        _find_decision(folder, decision_name, model),
        None if ranking_clip is None else Clip(ranking_clip, device),
    )


class LazyDrawer:
    """A diffusion model that takes memory only once something is drawn. A `Drawer`."""

    def __init__(self, load: Callable[[], Drawer]) -> None:
        self._load = load

    def draw(
        self,
        conditioning: Tensor,
        seeds: Sequence[int],
        num_inference_steps: int | None = None,
        guidance_scale: float | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> list[Image.Image | None]:
        """As `gill.types.Drawer`."""
        return self.drawer.draw(conditioning, seeds, num_inference_steps, guidance_scale, progress)

    @cached_property
    def drawer(self) -> Drawer:
        """The diffusion model, loaded now."""
        return self._load()


def _drawer(config: GillConfig, device: torch.device | str, scheduler: str | None) -> Drawer | None:
    if scheduler is not None:
        require_known("scheduler", scheduler, SCHEDULERS)  # now, and not when the first picture is drawn
    is_known = None not in (config.conditioning_length, config.conditioning_width)
    if not config.has_mapper or not config.diffusion or not is_known:
        return None
    dtype = getattr(torch, config.frozen_dtype)

    def load() -> Drawer:
        if is_tiny(config.diffusion):
            return tiny_drawer(dtype=dtype)
        return load_drawer(config.diffusion, device, dtype, scheduler)

    return LazyDrawer(load)


def _open_index(folder: Path, model: GillModel, search: str) -> RetrievalIndex | None:
    place = folder / INDEX_FOLDER
    released = sorted(path for pattern in _RELEASED_EMBEDDINGS for path in folder.glob(pattern))
    if released and not (place / MANIFEST_NAME).is_file():  # also continues an import that was stopped
        num_pictures, num_left_out = import_released(released, place)
        _log.info("%s: %d pictures imported, %d left out", place, num_pictures, num_left_out)
    if not place.is_dir():
        return None
    if released:
        check_imported(released, place)
    index = RetrievalIndex(place, search)
    index.check_model(fingerprint(model.retrieval_heads.image.weight, model.retrieval_heads.image.bias))
    return index


def _find_decision(folder: Path, name: str | None, model: GillModel) -> DecisionHead | None:
    if (folder / DECISION_WEIGHTS).is_file():
        return load_decision(folder, model.img_tokens.input_rows)
    if name is None or not (folder / name).is_file():
        return None
    head = read_decision(folder / name)
    if head.linear.in_features != model.language.hidden_width:
        raise CheckpointError(
            f"{folder / name} reads states of {head.linear.in_features} numbers, the language model has "
            f"{model.language.hidden_width}; it belongs to another model"
        )
    return head
