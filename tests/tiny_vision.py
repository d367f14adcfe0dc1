"""Builds tiny random checkpoints of vision models out of transformers' real classes, for tests."""

import string
from pathlib import Path

import torch
from torch import nn
from transformers import (
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessorPil,
    SwinConfig,
)

COCO_LABELS = ("person", "motorbike", "keyboard")
"""Three classes in spellings that GenEval does not use for two of them."""
MAX_TOKENS = 24


def build_clip(folder: Path, seed: int = 0, hidden_act: str = "quick_gelu") -> Path:
    """CLIP of 28x28 pixels and 8 dimensions, with a tokenizer that knows letters."""
    torch.manual_seed(seed)
    letters = [*string.ascii_lowercase, "-"]
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>"]
    vocab = {token: number for number, token in enumerate([*tokens, "<|endoftext|>"])}
    tokenizer = CLIPTokenizer(vocab=vocab, merges=[], model_max_length=MAX_TOKENS)
    tower = {
        **{"intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2},
        **{"projection_dim": 8, "hidden_act": hidden_act},
    }
    text = {
        **{"vocab_size": len(tokenizer), "hidden_size": 12, "max_position_embeddings": MAX_TOKENS},
        **{"bos_token_id": tokenizer.bos_token_id, "eos_token_id": tokenizer.eos_token_id},
        **{"pad_token_id": tokenizer.pad_token_id},
    }
    vision = {"hidden_size": 16, "image_size": 28, "patch_size": 14}
    config = CLIPConfig(text_config=tower | text, vision_config=tower | vision, projection_dim=8)
    CLIPModel(config).apply(_lively).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    CLIPImageProcessorPil(
        size={"shortest_edge": 28}, crop_size={"height": 28, "width": 28}
    ).save_pretrained(folder)
    return folder


def build_mask2former(
    folder: Path, seed: int = 0, size: dict[str, int] | None = None, pad_size: int | None = None
) -> Path:
    """Mask2Former of 6 queries and `COCO_LABELS`; `size` is what its processor resizes to."""
    torch.manual_seed(seed)
    stages = [f"stage{number}" for number in (1, 2, 3, 4)]
    backbone = SwinConfig(
        embed_dim=8, depths=[1] * 4, num_heads=[1, 1, 2, 2], window_size=4, out_features=stages
    )
    config = Mask2FormerConfig(
        backbone_config=backbone,
        feature_size=32,
        mask_feature_size=32,
        hidden_dim=32,
        encoder_feedforward_dim=16,
        encoder_layers=1,
        decoder_layers=2,
        num_attention_heads=2,
        dim_feedforward=16,
        num_queries=6,
        id2label=dict(enumerate(COCO_LABELS)),
        label2id={name: number for number, name in enumerate(COCO_LABELS)},
    )
    model = Mask2FormerForUniversalSegmentation(config)
    with torch.no_grad():
        model.class_predictor.weight.mul_(8)
    model.save_pretrained(folder)
    padding = {"pad_size": {"height": pad_size, "width": pad_size}} if pad_size else {}
    Mask2FormerImageProcessorPil(
        size=size or {"height": 64, "width": 64}, **padding
    ).save_pretrained(folder)
    return folder


def _lively(module: nn.Module) -> None:
    # Weights large enough that every pixel and letter is visible in the output.
    if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
        nn.init.normal_(module.weight, std=0.3)
