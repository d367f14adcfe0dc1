"""An untrained vision language model of the real classes (LLaVA), small enough for any test.

Its tokenizer knows whole words; its image processor is Pillow's, since torchvision is not needed.
"""

from pathlib import Path

import torch
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessorPil,
    CLIPVisionConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

PAD, UNKNOWN, BEGIN, END, IMAGE = "<pad>", "<unk>", "<s>", "</s>", "<image>"
ANSWERS = ("Yes", "yes", "No", "no", "yesterday", *"0123456789")
TALK = ("Is", "it", "a", "dog", "cat", "good", "?", ".", "Answer", "with", "only", "or")
CHAT = (
    "{% for message in messages %}{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endfor %}"
)


def write_vlm(folder: Path, words: tuple[str, ...] = ANSWERS, seed: int = 0) -> Path:
    """Write the checkpoint; `words` are what it can answer."""
    vocabulary = [PAD, UNKNOWN, BEGIN, END, IMAGE, *words, *TALK]
    _model(len(vocabulary), seed).save_pretrained(folder)
    _processor(vocabulary).save_pretrained(folder)
    return folder


def _processor(vocabulary: list[str]) -> LlavaProcessor:
    ids = {word: number for number, word in enumerate(vocabulary)}
    words = Tokenizer(models.WordLevel(ids, unk_token=UNKNOWN))
    words.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token=PAD,
        unk_token=UNKNOWN,
        bos_token=BEGIN,
        eos_token=END,
        additional_special_tokens=[IMAGE],
    )
    pixels = CLIPImageProcessorPil(
        size={"shortest_edge": 16}, crop_size={"height": 16, "width": 16}
    )
    return LlavaProcessor(
        pixels,
        tokenizer,
        patch_size=8,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT,
    )


def _model(num_words: int, seed: int) -> LlavaForConditionalGeneration:
    torch.manual_seed(seed)
    narrow = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    vision = CLIPVisionConfig(
        **narrow, num_attention_heads=2, image_size=16, patch_size=8, projection_dim=16
    )
    text = LlamaConfig(
        **narrow,
        vocab_size=num_words,
        num_attention_heads=2,
        num_key_value_heads=2,
        max_position_embeddings=128,
        pad_token_id=0,
        bos_token_id=2,
        eos_token_id=3,
    )
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_id=4, vision_feature_layer=-1
    )
    return LlavaForConditionalGeneration(config)
