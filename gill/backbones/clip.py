"""A whole CLIP: pictures and texts in its shared space, to score pictures by and as the baseline of retrieval.

Shape legend: N = pictures or texts, P = projection width.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from transformers import AutoTokenizer, CLIPModel

from gill.backbones.vision import load_image_transform
from gill.errors import ConfigError

DEFAULT_CLIP = "openai/clip-vit-large-patch14"  # what the papers score with


class Clip:
    """Unit rows of pictures and of texts.

    Args:
        name: hub name or folder of a whole CLIP of `transformers`.

    Raises:
        ConfigError: nothing loadable there.
    """

    def __init__(self, name: str, device: torch.device | str = "cpu") -> None:
        try:
            self.model = CLIPModel.from_pretrained(name, dtype=torch.float32).to(device).eval()
            self.tokenizer = AutoTokenizer.from_pretrained(name)
        except (OSError, ValueError) as error:
            raise ConfigError(f"cannot load the CLIP {name!r}: {error}; give a hub name or a local folder") from error
        self.transform = load_image_transform(name)

    @torch.no_grad()
    def embed_pictures(self, pictures: Sequence[Image.Image]) -> Tensor:
        """float[N, P] on the host."""
        pixels = self.transform.batch(pictures).to(self.model.device)
        return F.normalize(self.model.get_image_features(pixel_values=pixels).pooler_output, dim=-1).cpu()

    @torch.no_grad()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """float[N, P] on the host; a text longer than CLIP's window loses its end."""
        window = self.model.config.text_config.max_position_embeddings
        words = self.tokenizer(list(texts), padding=True, truncation=True, max_length=window, return_tensors="pt")
        features = self.model.get_text_features(**words.to(self.model.device)).pooler_output
        return F.normalize(features, dim=-1).cpu()

    def rank(self, text: str, pictures: Sequence[Image.Image]) -> list[float]:
        """How well each picture shows a text: the cosine of the two. A `gill.types.Ranker`."""
        return (self.embed_pictures(pictures) @ self.embed_texts([text])[0]).tolist()
