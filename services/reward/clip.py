"""CLIP's two towers: images and texts to embeddings of length 1.

Weights come as transformers writes them (a folder), or as open_clip does (one .safetensors file);
the latter needs a `base` folder of the same architecture for configuration and tokenizer.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn.functional import normalize

from services.reward.checkpoints import Placement, fill, load_pretrained, read_tensors, ready

NEEDS = ("config.json", "preprocessor_config.json", "tokenizer_config.json")
"""What a base folder holds besides weights."""

_OPEN_CLIP_NAMES = (
    (r"^visual\.class_embedding$", "vision_model.embeddings.class_embedding"),
    (r"^visual\.positional_embedding$", "vision_model.embeddings.position_embedding.weight"),
    (r"^visual\.conv1\.", "vision_model.embeddings.patch_embedding."),
    (r"^visual\.ln_pre\.", "vision_model.pre_layrnorm."),  # transformers' own spelling
    (r"^visual\.ln_post\.", "vision_model.post_layernorm."),
    (r"^visual\.proj$", "visual_projection.weight"),
    (r"^visual\.transformer\.resblocks\.", "vision_model.encoder.layers."),
    (r"^transformer\.resblocks\.", "text_model.encoder.layers."),
    (r"^token_embedding\.", "text_model.embeddings.token_embedding."),
    (r"^positional_embedding$", "text_model.embeddings.position_embedding.weight"),
    (r"^ln_final\.", "text_model.final_layer_norm."),
    (r"^text_projection$", "text_projection.weight"),
    (r"\.ln_([12])\.", r".layer_norm\1."),
    (r"\.attn\.", ".self_attn."),
    (r"\.mlp\.c_fc\.", ".mlp.fc1."),
    (r"\.mlp\.c_proj\.", ".mlp.fc2."),
)


class ClipEncoder:
    """A CLIP model with its tokenizer and image processor."""

    def __init__(self, model: Any, tokenizer: Any, image_processor: Any) -> None:
        """Made by `load_clip`; the model is in eval mode on its device."""
        self._model = model
        self._tokenizer = tokenizer
        self._image_processor = image_processor

    @property
    def width(self) -> int:
        """D of the embeddings."""
        return self._model.config.projection_dim

    @property
    def image_size(self) -> int:
        """Pixels of a side of what the vision tower sees."""
        return self._model.config.vision_config.image_size

    @property
    def pixel_statistics(self) -> tuple[Tensor, Tensor]:
        """Mean and deviation (3, 1, 1) that the model's own processor normalises by."""
        mean, std = self._image_processor.image_mean, self._image_processor.image_std
        return torch.tensor(mean).view(3, 1, 1), torch.tensor(std).view(3, 1, 1)

    @property
    def logit_scale(self) -> float:
        """exp of the learned log temperature."""
        return self._model.logit_scale.float().exp().item()

    def embed_images(self, images: Sequence[NDArray[np.uint8]]) -> Tensor:
        """(N, D) float32 of length 1, from RGB images (H, W, 3), by the model's own processor."""
        pictures = [Image.fromarray(image) for image in images]
        return self.embed_pixels(self._image_processor(pictures, return_tensors="pt").pixel_values)

    @torch.inference_mode()
    def embed_pixels(self, pixels_N3HW: Tensor) -> Tensor:
        """(N, D) float32 of length 1, from pixels that are preprocessed already."""
        pixels = pixels_N3HW.to(self._model.device, self._model.dtype)
        return normalize(self._model.get_image_features(pixels).pooler_output.float(), dim=-1)

    @torch.inference_mode()
    def embed_texts(self, texts: Sequence[str]) -> Tensor:
        """(N, D) float32 of length 1; what is past the tower's positions is cut off."""
        tokens = self._tokenizer(
            list(texts),
            padding=True,
            truncation=True,
            max_length=self._model.config.text_config.max_position_embeddings,
            return_tensors="pt",
        ).to(self._model.device)
        features = self._model.get_text_features(tokens.input_ids, tokens.attention_mask)
        return normalize(features.pooler_output.float(), dim=-1)

    def similarity(self, images: Sequence[NDArray[np.uint8]], texts: Sequence[str]) -> Tensor:
        """(N,) cosines of every image with its own text."""
        return pairwise_cosines(self.embed_images(images), self.embed_unique(texts))

    def embed_unique(self, texts: Sequence[str]) -> Tensor:
        """As `embed_texts`, each different text once: a group shares its prompt."""
        unique = list(dict.fromkeys(texts))
        return self.embed_texts(unique)[[unique.index(text) for text in texts]]


def pairwise_cosines(a_ND: Tensor, b_ND: Tensor) -> Tensor:
    """(N,) inner products of rows of length 1."""
    return (a_ND * b_ND).sum(dim=-1)


def load_clip(weights: Path, base: Path, placement: Placement) -> ClipEncoder:
    """Read the model from `weights`; configuration, tokenizer and processor from `base`."""
    from transformers import AutoTokenizer, CLIPConfig, CLIPImageProcessorPil, CLIPModel

    if weights.is_dir():
        model = load_pretrained(CLIPModel, weights)
    else:
        model = CLIPModel(CLIPConfig.from_pretrained(base, local_files_only=True))
        fill(model, from_open_clip(read_tensors(weights)), weights)
    return ClipEncoder(
        ready(model, placement),
        AutoTokenizer.from_pretrained(base, local_files_only=True),
        # The torchvision twin gives other pixels where torchvision is installed: name this one.
        CLIPImageProcessorPil.from_pretrained(base, local_files_only=True),
    )


def from_open_clip(tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """open_clip's parameters under transformers' names; a buffer that is none is left out."""
    converted: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        name = name.removeprefix("module.")
        if name == "attn_mask":
            continue
        for pattern, replacement in _OPEN_CLIP_NAMES:
            name = re.sub(pattern, replacement, name)
        if name in ("visual_projection.weight", "text_projection.weight"):
            converted[name] = tensor.T.contiguous()
        elif ".in_proj_" in name:
            for part, third in zip("qkv", tensor.chunk(3), strict=True):
                converted[name.replace(".in_proj_", f".{part}_proj.")] = third.contiguous()
        else:
            converted[name] = tensor
    return converted
