"""Builds tiny random checkpoints of vision models out of transformers' real classes, for tests."""

import string
from pathlib import Path

import torch
from tokenizers.pre_tokenizers import ByteLevel
from torch import nn
from transformers import (
    BertTokenizer,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    CLIPTokenizer,
    Mask2FormerConfig,
    Mask2FormerForUniversalSegmentation,
    Mask2FormerImageProcessorPil,
    Qwen2_5_VLConfig,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2Tokenizer,
    Qwen2VLConfig,
    Qwen2VLImageProcessorPil,
    SwinConfig,
)

COCO_LABELS = ("person", "motorbike", "keyboard")
"""Three classes in spellings that GenEval does not use for two of them."""
MAX_TOKENS = 24
QWEN_MARKS = (
    *("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>"),
    *("<|image_pad|>", "<|video_pad|>"),
)
QWEN_TURN = (
    "{% for turn in messages %}<|im_start|>{{ turn['role'] }}\n{% for part in turn['content'] %}"
    "{% if part['type'] == 'image' %}<|vision_start|><|image_pad|><|vision_end|>"
    "{% else %}{{ part['text'] }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


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


def build_bert_tokenizer(folder: Path) -> Path:
    """A tokenizer of BERT's kind that knows letters."""
    letters = [*string.ascii_lowercase, *("##" + letter for letter in string.ascii_lowercase)]
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *letters]
    BertTokenizer(vocab={token: i for i, token in enumerate(tokens)}).save_pretrained(folder)
    return folder


def build_qwen2_vl(folder: Path) -> Qwen2VLConfig:
    """Config, tokenizer and image processor of a tiny Qwen2-VL, without weights."""
    vocab = _qwen_tokenizer(folder)
    config = Qwen2VLConfig(
        text_config=_qwen_text(vocab),
        vision_config={"embed_dim": 16, "hidden_size": 16, "mlp_ratio": 2, **_QWEN_VISION},
        **_qwen_ids(vocab),
    )
    config.save_pretrained(folder)
    return config


def build_qwen2_5_vl(folder: Path, seed: int = 0, tied: bool = False) -> Path:
    """A tiny Qwen2.5-VL with random weights; it reads and writes bytes."""
    torch.manual_seed(seed)
    vocab = _qwen_tokenizer(folder)
    vision = {"hidden_size": 16, "intermediate_size": 32, "out_hidden_size": 16, "window_size": 28}
    config = Qwen2_5_VLConfig(
        text_config=_qwen_text(vocab),
        vision_config=vision | _QWEN_VISION | {"fullatt_block_indexes": [0]},
        tie_word_embeddings=tied,
        **_qwen_ids(vocab),
    )
    model = Qwen2_5_VLForConditionalGeneration(config).apply(_lively)
    model.generation_config.eos_token_id = vocab["<|im_end|>"]
    model.generation_config.pad_token_id = vocab["<|endoftext|>"]
    model.save_pretrained(folder)
    return folder


_QWEN_VISION = {"depth": 1, "num_heads": 2, "patch_size": 14, "spatial_merge_size": 2}


def _qwen_tokenizer(folder: Path) -> dict[str, int]:
    vocab = {mark: i for i, mark in enumerate([*sorted(ByteLevel.alphabet()), *QWEN_MARKS])}
    tokenizer = Qwen2Tokenizer(
        vocab=vocab,
        merges=[],
        additional_special_tokens=list(QWEN_MARKS),
        pad_token="<|endoftext|>",
        eos_token="<|im_end|>",
        chat_template=QWEN_TURN,
    )
    tokenizer.save_pretrained(folder)
    Qwen2VLImageProcessorPil(
        size={"shortest_edge": 28 * 28, "longest_edge": 56 * 56}
    ).save_pretrained(folder)
    return vocab


def _qwen_text(vocab: dict[str, int]) -> dict:
    return {
        **{"vocab_size": len(vocab) + 1, "hidden_size": 16, "intermediate_size": 32},
        **{"num_hidden_layers": 2, "num_attention_heads": 2, "num_key_value_heads": 1},
        **{"bos_token_id": None, "eos_token_id": vocab["<|im_end|>"]},
        "rope_parameters": {
            **{"rope_type": "default", "rope_theta": 10000.0, "mrope_section": [1, 1, 2]},
        },
    }


def _qwen_ids(vocab: dict[str, int]) -> dict[str, int]:
    return {
        "image_token_id": vocab["<|image_pad|>"],
        "video_token_id": vocab["<|video_pad|>"],
        "vision_start_token_id": vocab["<|vision_start|>"],
        "vision_end_token_id": vocab["<|vision_end|>"],
    }


def _lively(module: nn.Module) -> None:
    # Weights large enough that every pixel and letter is visible in the output.
    if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
        nn.init.normal_(module.weight, std=0.3)
