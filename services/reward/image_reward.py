"""ImageReward: BLIP's text encoder reads the prompt while it looks at the image.

    score = (head(h) - 0.16717362830052426) / 1.0333394966054072

with h the text encoder's last state of its first token. The published file has Salesforce's names
of BLIP's parameters; the geometry is read off their shapes.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from services.reward.checkpoints import Placement, fill, read_tensors, ready
from services.reward.contract import Answer
from services.reward.score_head import build_head

MEAN, STD = 0.16717362830052426, 1.0333394966054072
"""Of the scores of the authors' validation images."""
MAX_TOKENS = 35
HEAD_WIDTH = 64
"""Channels of an attention head, in BLIP's towers of every size."""
VISION, TEXT, HEAD = "blip.visual_encoder.", "blip.text_encoder.", "mlp."

_VISION_NAMES = (
    (r"^cls_token$", "embeddings.class_embedding"),
    (r"^pos_embed$", "embeddings.position_embedding"),
    (r"^patch_embed\.proj\.", "embeddings.patch_embedding."),
    (r"^norm\.", "post_layernorm."),
    (r"^blocks\.", "encoder.layers."),
    (r"\.norm([12])\.", r".layer_norm\1."),
    (r"\.attn\.qkv\.", ".self_attn.qkv."),
    (r"\.attn\.proj\.", ".self_attn.projection."),
)


class Parts(NamedTuple):
    """What a score is made with."""

    processor: Any
    tokenizer: Any
    vision: Any
    text: Any
    head: nn.Module


class ImageReward:
    """Xu and others' model; `base` is the folder of its tokenizer, bert-base-uncased."""

    weights_need: ClassVar[tuple[str, ...]] = ()
    base_need: ClassVar[tuple[str, ...]] = ("tokenizer_config.json",)

    def __init__(self, weights: Path, base: Path, placement: Placement) -> None:
        """`prepare`, or the first images, load the weights."""
        self._weights = weights
        self._base = base
        self._placement = placement
        self._parts: Parts | None = None

    def prepare(self) -> None:
        """Load the models, once."""
        self._parts = self._parts or self._load()

    @torch.inference_mode()
    def score(self, images: Sequence[NDArray[np.uint8]], prompts: Sequence[str]) -> list[Answer]:
        """The normalised score of every image for its prompt (about -2 to 2)."""
        parts = self._parts = self._parts or self._load()
        pictures = [Image.fromarray(image) for image in images]
        pixels = parts.processor(pictures, return_tensors="pt").pixel_values
        looked_at = parts.vision(pixels.to(parts.vision.device, parts.vision.dtype))
        tokens = parts.tokenizer(
            list(prompts),
            padding="max_length",
            truncation=True,
            max_length=MAX_TOKENS,
            return_tensors="pt",
        ).to(parts.text.device)
        states = parts.text(
            input_ids=tokens.input_ids,
            attention_mask=tokens.attention_mask,
            encoder_hidden_states=looked_at.last_hidden_state,
        ).last_hidden_state
        scores = parts.head(states[:, 0].float()).squeeze(-1)
        return ((scores - MEAN) / STD).tolist()

    def _load(self) -> Parts:
        from transformers import AutoTokenizer, CLIPImageProcessorPil

        tensors = read_tensors(self._weights)
        vision, text = build_towers(tensors, self._weights)
        head = build_head(_under(tensors, HEAD), text.config.hidden_size, self._weights)
        side = vision.config.image_size
        return Parts(
            # Its pixels are CLIP's: shorter side to 224, centre, CLIP's mean and deviation.
            CLIPImageProcessorPil(
                size={"shortest_edge": side}, crop_size={"height": side, "width": side}
            ),
            AutoTokenizer.from_pretrained(self._base, local_files_only=True),
            ready(vision, self._placement),
            ready(text, self._placement),
            ready(head, Placement(self._placement.device)),
        )


def build_towers(tensors: Mapping[str, Tensor], source: Path) -> tuple[Any, Any]:
    """BLIP's vision and text towers, filled; ValueError where the file has none."""
    from transformers import BlipTextConfig, BlipTextModel, BlipVisionConfig, BlipVisionModel

    of_vision, of_text = _under(tensors, VISION), _under(tensors, TEXT)
    if not of_vision or not of_text:
        raise ValueError(
            f"{source} is not ImageReward: no tensor's name begins with {VISION} and {TEXT}; it "
            f"has {', '.join(list(tensors)[:3])}"
        )
    patch = of_vision["patch_embed.proj.weight"].shape
    places = of_vision["pos_embed"].shape[1] - 1
    vision = BlipVisionConfig(
        hidden_size=patch[0],
        intermediate_size=len(of_vision["blocks.0.mlp.fc1.weight"]),
        num_hidden_layers=_layers(of_vision, "blocks"),
        num_attention_heads=patch[0] // HEAD_WIDTH,
        image_size=round(places**0.5) * patch[-1],
        patch_size=patch[-1],
        layer_norm_eps=1e-6,
    )
    words = of_text["embeddings.word_embeddings.weight"].shape
    text = BlipTextConfig(
        vocab_size=words[0],
        hidden_size=words[1],
        encoder_hidden_size=patch[0],
        intermediate_size=len(of_text["encoder.layer.0.intermediate.dense.weight"]),
        num_hidden_layers=_layers(of_text, "encoder.layer"),
        num_attention_heads=words[1] // HEAD_WIDTH,
        max_position_embeddings=len(of_text["embeddings.position_embeddings.weight"]),
        layer_norm_eps=1e-12,
    )
    vision_tower = BlipVisionModel(vision)
    text_tower = BlipTextModel(text, add_pooling_layer=False)
    fill(vision_tower, {_vision_name(name): of_vision[name] for name in of_vision}, source)
    of_text.pop("embeddings.position_ids", None)  # a buffer that counts 0, 1, 2, ...
    fill(text_tower, of_text, source)
    return vision_tower, text_tower


def _vision_name(name: str) -> str:
    for pattern, replacement in _VISION_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _under(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {
        name.removeprefix(prefix): tensor.float()
        for name, tensor in tensors.items()
        if name.startswith(prefix)
    }


def _layers(tensors: Mapping[str, Tensor], prefix: str) -> int:
    """One more than the largest N of `prefix.N.`."""
    numbers = [re.match(rf"{re.escape(prefix)}\.(\d+)\.", name) for name in tensors]
    return 1 + max(int(match[1]) for match in numbers if match)
