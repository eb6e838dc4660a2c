"""`from_pretrained`, `save_pretrained` and `push_to_hub`: a model with all that lies beside it, as one folder.

Each of its files belongs to another room (docs/FORMATS.md); here the folder is put together, and moved to and from the
hub.
"""

from __future__ import annotations

import dataclasses
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from huggingface_hub import HfApi, snapshot_download
from huggingface_hub.errors import HFValidationError

from gill.errors import CheckpointError, ConfigError, MissingCheckpointError
from gill.models.gill.assembly import INDEX_FOLDER, load_generator
from gill.models.gill.card import CARD_NAME, write_model_card
from gill.models.gill.checkpoint import save_state
from gill.models.gill.config import GillConfig
from gill.models.gill.decision import save_decision
from gill.models.gill.encoding import is_tiny
from gill.models.gill.generator import GillGenerator
from gill.models.gill.released import DECISION_NAME
from gill.parameters import trainable_state
from gill.retrieval import RetrievalIndex

# All of these are read without executing anything in them; nothing else is downloaded.
_SAFE_FILES = (
    *("*.json", "*.safetensors", "*.md", "*merges.txt", "*vocab.txt", "*.model", "*.jinja"),
    *(f"{INDEX_FOLDER}/*", "*.pth.tar", "cc3m*.npy", "cc3m*.pkl"),
)
CHECKPOINTS = Path(__file__).resolve().parents[3] / "checkpoints"  # of the repository
_BACKBONES = ("language", "vision", "diffusion")
_WHITENING_FILE = "whitening.safetensors"


class Pretrained:
    """What a loaded model of the family can do with folders and with the hub; `generator` is the model at work."""

    default_folder: ClassVar[Path]

    def __init__(self, generator: GillGenerator) -> None:
        self.generator = generator

    @classmethod
    def from_pretrained(
        cls,
        model_dir: str | Path | None = None,
        load_ret_embs: bool = True,
        decision_model_fn: str | None = DECISION_NAME,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
        quantization: str = "",
        image_folders: Sequence[Path] = (),
        allow_network: bool = False,
        changes: Mapping[str, Any] | None = None,
        search: str = "exact",
        scheduler: str | None = None,
        ranking_clip: str | None = None,
        revision: str | None = None,
        token: str | bool | None = None,
        cache_dir: str | Path | None = None,
    ) -> Self:
        """Load a model of ours or a released one.

        Args:
            model_dir: a folder as `load_generator` takes it, or a name on the hub; None takes the family's own.
            load_ret_embs: retrieve, if the folder holds an index or released embeddings.
            decision_model_fn: name of an original's decision head in the folder; None goes without.
            device: None takes an accelerator where there is one.
            dtype, quantization, image_folders, allow_network, changes, search, scheduler, ranking_clip: as
                `load_generator`.
            revision, token, cache_dir: of a name on the hub, as `huggingface_hub.snapshot_download`.

        Raises:
            MissingCheckpointError, CheckpointError, ConfigError: as `load_generator`.
        """
        folder = cls.default_folder if model_dir is None else find_folder(model_dir, revision, token, cache_dir)
        device = device or ("cuda" if torch.cuda.is_available() else "cpu")
        rest = (decision_model_fn, image_folders, allow_network, changes, search, scheduler, ranking_clip)
        return cls(load_generator(folder, device, dtype, quantization, load_ret_embs, *rest))

    def save_pretrained(
        self,
        save_directory: str | Path,
        has_index: bool = True,
        has_frozen_parts: bool = False,
        repo_id: str | None = None,
    ) -> Path:
        """Write the model, its decision head and its index as a folder that `from_pretrained` opens.

        A model card (README.md) is written unless one is there.

        Args:
            has_index: False leaves the index out.
            has_frozen_parts: copy frozen parts that are local folders, so that this one needs nothing beside it; those
                named on the hub are never copied.
            repo_id: what the model card calls the model; None calls it by its folder.

        Returns:
            The folder.

        Raises:
            ConfigError: an index that is not on disk.
        """
        folder, model = Path(save_directory), self.generator.model
        folder.mkdir(parents=True, exist_ok=True)
        config = _with_files(model.config, folder, _BACKBONES if has_frozen_parts else ())
        save_state(folder, config, trainable_state(model), model.vocabulary.num_words)
        if self.generator.images.decision is not None:
            head = self.generator.images.decision
            save_decision(folder, head, model.img_tokens.input_rows, head.report)
        if has_index and self.generator.images.index is not None:
            _copy_index(self.generator.images.index, folder / INDEX_FOLDER)
        if not (folder / CARD_NAME).exists():
            write_model_card(folder, model, config, repo_id or folder.resolve().name)
        return folder

    def push_to_hub(
        self,
        repo_id: str,
        private: bool | None = None,
        token: str | bool | None = None,
        revision: str | None = None,
        commit_message: str = "Upload model",
        has_index: bool = True,
        has_frozen_parts: bool = False,
    ) -> str:
        """Save the model and upload the folder; the repository is made if it is not there.

        Args:
            private, token, revision, commit_message: as `huggingface_hub.HfApi`.
            has_index, has_frozen_parts: as `save_pretrained`.

        Returns:
            The address of the commit.

        Raises:
            ConfigError: frozen parts are local folders that nobody who downloads the model would have.
        """
        own = [getattr(self.generator.model.config, part) for part in _BACKBONES]
        local = [name for name in own if name and Path(name).is_dir()]
        if local and not has_frozen_parts:
            raise ConfigError(
                f"the model is built on folders of this machine ({', '.join(local)}); upload them with it: "
                "push_to_hub(..., has_frozen_parts=True)"
            )
        api = HfApi(token=token)
        with tempfile.TemporaryDirectory() as folder:
            name = api.create_repo(repo_id, private=private, exist_ok=True).repo_id
            self.save_pretrained(folder, has_index, has_frozen_parts, name)
            commit = api.upload_folder(
                repo_id=name, folder_path=folder, revision=revision, commit_message=commit_message
            )
        return str(commit.commit_url)


def find_folder(
    name: str | Path,
    revision: str | None = None,
    token: str | bool | None = None,
    cache_dir: str | Path | None = None,
) -> Path:
    """The folder of a model: as it is if it is there, else downloaded from the hub.

    Args:
        name: a folder, or "user/model". revision, token, cache_dir: as `huggingface_hub.snapshot_download`.

    Raises:
        MissingCheckpointError: it is neither.
    """
    if Path(name).exists():
        return Path(name)
    try:
        return Path(
            snapshot_download(
                str(name), revision=revision, token=token, cache_dir=cache_dir, allow_patterns=list(_SAFE_FILES)
            )
        )
    except HFValidationError as error:
        raise MissingCheckpointError(f"there is no folder {name}; give one, or a model's name on the hub") from error
    except OSError as error:
        reason = (str(error).splitlines() or [type(error).__name__])[0]
        raise MissingCheckpointError(
            f"{name} is no folder here, and cannot be had from the hub: {reason}; give a folder or user/model"
        ) from error


def _with_files(config: GillConfig, folder: Path, parts: Sequence[str]) -> GillConfig:
    """Copy local frozen parts into a model's folder, under their settings' names; returns settings that say so."""
    copied: dict[str, Any] = {}
    for part in parts:
        source = Path(getattr(config, part))
        if getattr(config, part) and not is_tiny(str(source)) and source.is_dir():
            _copy(source, folder / part)
            copied[part] = part
    if config.whitening:  # small, and measured for this model: it always goes with it
        _copy(Path(config.whitening), folder / _WHITENING_FILE)
        copied["whitening"] = _WHITENING_FILE
    return dataclasses.replace(config, **copied)


def _copy_index(index: object, place: Path) -> None:
    if not isinstance(index, RetrievalIndex):
        raise ConfigError(f"only an index on disk can be saved, not {type(index).__name__}; give has_index=False")
    _copy(index.folder, place)


def _copy(source: Path, target: Path) -> None:
    """Copy a file or folder; onto itself nothing happens.

    Raises:
        CheckpointError: it is not there any more.
    """
    if not source.exists():
        raise CheckpointError(f"{source}, which the model was built with, is not there any more; put it back")
    if target.exists() and target.samefile(source):
        return
    if source.is_dir():
        shutil.copytree(source, target, dirs_exist_ok=True)
    else:
        shutil.copyfile(source, target)
