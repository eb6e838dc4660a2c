"""Stored conditioning targets, one `.npy` file a picture, as the original writes them.

`<folder>/<image name>.npy` holds float16 or float32 (L, C): what the diffusion model's text encoder makes of the
caption. Nothing is unpickled.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from gill.errors import DataError, MissingFileError

FOLDER_NAME = "clip_embs"  # beside the pictures, as in the original


class TargetFolder:
    """Conditioning targets by image name.

    Args:
        shape: (L, C) that every target must have, or None to accept any.

    Raises:
        MissingFileError: no such folder.
    """

    def __init__(self, folder: Path, shape: tuple[int, int] | None = None) -> None:
        if not folder.is_dir():
            raise MissingFileError(
                f"{folder} is missing: without --diffusion-model, conditioning targets are read from there; "
                "write them with scripts/preprocess_sd_embeddings.py, or name a diffusion model"
            )
        self.folder, self.shape = folder, shape

    def read(self, name: str, place: str) -> Tensor:
        """float32[L, C] target of a picture.

        Args:
            name: as the caption file writes it. place: file and line that ask for it, for messages.

        Raises:
            MissingFileError: not stored; DataError: not such an array.
        """
        path = target_path(self.folder, name)
        try:
            target = np.load(path, allow_pickle=False)
        except FileNotFoundError as error:
            raise MissingFileError(
                f"{place}: no conditioning target {path}; write it with scripts/preprocess_sd_embeddings.py"
            ) from error
        except (OSError, ValueError, EOFError) as error:
            raise DataError(f"{place}: {path} is no array that can be read ({error}); write it again") from error
        if target.ndim != 2 or target.dtype not in (np.float16, np.float32):
            raise DataError(f"{place}: {path} is {target.dtype}{target.shape}, wanted float16 or float32 (L, C)")
        if self.shape is not None and target.shape != self.shape:
            raise DataError(f"{place}: {path} is {target.shape}, the model wants {self.shape}; write it again")
        if not np.isfinite(target).all():
            raise DataError(f"{place}: {path} holds numbers that are not finite; write it again")
        return torch.from_numpy(target.astype(np.float32))


def target_path(folder: Path, name: str) -> Path:
    """Where the target of a picture is stored: the whole name, extension included, and `.npy`."""
    return folder / f"{name}.npy"
