"""Networks whose feature maps LPIPS compares (Zhang et al. 2018, arXiv:1801.03924).

Shape legend: N = pictures, C x H x W = channels and places of a layer's map.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
import torchmetrics.functional.image as torchmetrics_image
import torchvision
from PIL import Image
from torch import Tensor, nn
from torchvision.transforms.functional import pil_to_tensor

from gill.backbones import Clip
from gill.errors import CheckpointError
from gill.metrics import lpips_distances

ALEXNET = "alex"
SIDE = 256  # the original evaluation resizes both pictures to this
_RELUS = (1, 4, 7, 9, 11)  # of torchvision's AlexNet
_SHIFT, _SCALE = (-0.030, -0.088, -0.188), (0.458, 0.448, 0.450)  # of LPIPS v0.1, for pixels in -1..1
_LEARNED = Path(torchmetrics_image.__file__).parent / "lpips_models" / "alex.pth"  # the weights that LPIPS released


class AlexNetMaps:
    """LPIPS-Alex v0.1: five layers of AlexNet, and the weights that were learned for their channels.

    Args:
        features: the convolutions of torchvision's AlexNet.
    """

    def __init__(self, features: nn.Sequential, device: str = "cpu") -> None:
        self.features, self.device = features.eval().to(device), device
        learned = torch.load(_LEARNED, map_location="cpu", weights_only=True)
        self.channel_weights = [learned[f"lin{layer}.model.1.weight"].flatten() for layer in range(len(_RELUS))]

    @torch.no_grad()
    def __call__(self, pictures: Sequence[Image.Image]) -> list[Tensor]:
        """float[N, C, H, W] of each layer."""
        shift, scale = torch.tensor(_SHIFT).view(3, 1, 1), torch.tensor(_SCALE).view(3, 1, 1)
        states = ((as_pixels(pictures) - shift) / scale).to(self.device)
        maps = []
        for number, layer in enumerate(self.features):
            states = layer(states)
            if number in _RELUS:
                maps.append(states.cpu())
        return maps


class ClipMaps:
    """The layers of a CLIP's vision transformer as maps, every channel counting the same."""

    channel_weights = None

    def __init__(self, clip: Clip) -> None:
        self.clip = clip

    @torch.no_grad()
    def __call__(self, pictures: Sequence[Image.Image]) -> list[Tensor]:
        """float[N, C, H, W] of each layer."""
        pixels = self.clip.transform.batch(pictures).to(self.clip.model.device)
        states = self.clip.model.vision_model(pixel_values=pixels, output_hidden_states=True).hidden_states[1:]
        side = round((states[0].shape[1] - 1) ** 0.5)
        return [layer[:, 1:].transpose(1, 2).unflatten(-1, (side, side)).cpu() for layer in states]


def load_maps(name: str, device: str) -> AlexNetMaps | ClipMaps:
    """ "alex", which torchvision downloads once, or the hub name or folder of a CLIP.

    Raises:
        CheckpointError: AlexNet cannot be fetched. ConfigError: no such CLIP.
    """
    if name != ALEXNET:
        return ClipMaps(Clip(name, device))
    try:
        weights = torchvision.models.AlexNet_Weights.IMAGENET1K_V1
        return AlexNetMaps(torchvision.models.alexnet(weights=weights).features, device)
    except OSError as error:
        raise CheckpointError(f"AlexNet cannot be downloaded ({error}); give --lpips the folder of a CLIP") from error


def distances(maps: AlexNetMaps | ClipMaps, left: Sequence[Image.Image], right: Sequence[Image.Image]) -> Tensor:
    """float[N] of picture i to picture i; 0 for equal ones."""
    return lpips_distances(maps(left), maps(right), maps.channel_weights)


def as_pixels(pictures: Sequence[Image.Image]) -> Tensor:
    """float[N, 3, 256, 256] in -1..1, resized without keeping proportions, as the original does."""
    tensors = [pil_to_tensor(picture.convert("RGB"))[None].float() / 127.5 - 1 for picture in pictures]
    return torch.cat([F.interpolate(each, (SIDE, SIDE), mode="bilinear", antialias=True) for each in tensors])
