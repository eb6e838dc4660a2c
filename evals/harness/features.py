"""Networks whose features of whole pictures FID and KID compare.

Shape legend: N = pictures, D = feature width.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from PIL import Image
from torch import Tensor
from torchvision.transforms.functional import pil_to_tensor

from gill.backbones import Clip
from gill.errors import CheckpointError, ConfigError

INCEPTION = "inception"
Features = Callable[[Sequence[Image.Image]], Tensor]


class InceptionFeatures:
    """The Inception v3 of 2015 that published FIDs use, which resizes pictures as TensorFlow 1 did.

    Args:
        network: bytes [1, 3, H, W] to a tuple of one float[1, D], as the extractors of torch-fidelity.
    """

    def __init__(self, network: Callable[[Tensor], Sequence[Tensor]], device: str = "cpu") -> None:
        self.network, self.device = network, device

    @torch.no_grad()
    def __call__(self, pictures: Sequence[Image.Image]) -> Tensor:
        """float[N, D] on the host; pictures differ in size, so they go one by one."""
        pixels = [pil_to_tensor(picture.convert("RGB"))[None].to(self.device) for picture in pictures]
        return torch.cat([self.network(each)[0].float().cpu() for each in pixels])


def load_features(name: str, device: str) -> Features:
    """ "inception", which torch-fidelity downloads once, or the hub name or folder of a CLIP (its unit rows).

    Raises:
        ConfigError: torch-fidelity is not installed, or no such CLIP. CheckpointError: Inception cannot be fetched.
    """
    if name != INCEPTION:
        return Clip(name, device).embed_pictures
    try:
        from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3
    except ImportError as error:
        raise ConfigError('--fid inception wants torch-fidelity; pip install ".[fid]", or name a CLIP') from error
    try:
        return InceptionFeatures(FeatureExtractorInceptionV3(INCEPTION, ["2048"]).to(device), device)
    except OSError as error:
        raise CheckpointError(f"Inception cannot be downloaded ({error}); give --fid the folder of a CLIP") from error
