"""Builds the untrained tiny Stable Diffusion 3 pipeline out of real diffusers and transformers.

A 32x32 image is 4x4 latent cells of 12 channels, one transformer token a cell; a caption is at
most `CAPTION_TOKENS` tokens, one a word. There is no third text encoder: run the pipeline with
`max_sequence_length=0`, so that no T5 tokens join the context. A stored folder is in bf16; load it
with `text_encoder_3=None, tokenizer_3=None` and one `dtype` for all parts.
"""

import json
import string
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

from services.demo.prompts import WORDS

CAPTION_TOKENS = 10
LATENT_CHANNELS = 12
LATENT_SIZE = 4
IMAGE_SIZE = 32
START, END = "<|startoftext|>", "<|endoftext|>"


def build_pipeline(folder: Path, seed: int = 0) -> StableDiffusion3Pipeline:
    """The whole untrained pipeline; the tokenizer's two files are written to `folder`/tokenizer."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(folder / "tokenizer")
    return StableDiffusion3Pipeline(
        transformer=build_transformer(),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=build_autoencoder(),
        text_encoder=build_text_encoder(tokenizer, width=64, seed=seed),
        tokenizer=tokenizer,
        text_encoder_2=build_text_encoder(tokenizer, width=128, seed=seed + 1),
        tokenizer_2=tokenizer,
        text_encoder_3=None,
        tokenizer_3=None,
    )


def build_transformer() -> SD3Transformer2DModel:
    """The velocity network, about 3.6 M parameters; latents (B, 12, 4, 4) in and out."""
    return SD3Transformer2DModel(
        sample_size=LATENT_SIZE,
        patch_size=1,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        num_layers=4,
        attention_head_dim=32,
        num_attention_heads=5,
        joint_attention_dim=64 + 128,
        caption_projection_dim=160,
        pooled_projection_dim=64 + 128,
        pos_embed_max_size=LATENT_SIZE,
        qk_norm="rms_norm",
    )


def build_autoencoder() -> AutoencoderKL:
    """Images (B, 3, 32, 32) in [-1, 1] to latents (B, 12, 4, 4) and back; no attention."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 16, 32, 64),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=LATENT_CHANNELS,
        sample_size=IMAGE_SIZE,
        scaling_factor=1.0,
        shift_factor=0.0,
        mid_block_add_attention=False,
    )


def build_text_encoder(
    tokenizer: CLIPTokenizer, width: int, seed: int
) -> CLIPTextModelWithProjection:
    """A two-layer CLIP text encoder whose tokens and projection are `width` wide."""
    torch.manual_seed(seed)
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            projection_dim=width,
            num_hidden_layers=2,
            num_attention_heads=width // 32,
            max_position_embeddings=CAPTION_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_tokenizer(folder: Path) -> CLIPTokenizer:
    """A CLIP tokenizer that knows each word of the world as one token; writes its two files."""
    vocab, merges = byte_pairs(WORDS)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, merges)) + "\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=CAPTION_TOKENS)


def byte_pairs(words: tuple[str, ...]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merge list under which byte-pair encoding makes each word one token."""
    letters = string.ascii_lowercase
    pieces = [*letters, *(letter + "</w>" for letter in letters)]
    merges: list[tuple[str, str]] = []
    for word in words:
        split = [*word[:-1], word[-1] + "</w>"]
        for left, right in merges:
            split = _merged(split, left, right)
        while len(split) > 1:
            merges.append((split[0], split[1]))
            pieces.append(split[0] + split[1])
            split = _merged(split, *merges[-1])
    tokens = [*dict.fromkeys(pieces), START, END]
    return {token: number for number, token in enumerate(tokens)}, merges


def _merged(split: list[str], left: str, right: str) -> list[str]:
    joined: list[str] = []
    for piece in split:
        if joined and joined[-1] == left and piece == right:
            joined[-1] = left + right
        else:
            joined.append(piece)
    return joined
