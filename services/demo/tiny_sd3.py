"""Builds the untrained tiny Stable Diffusion 3 pipeline out of real diffusers and transformers.

An 8 x 8 px cell is one latent; `patch_size` x `patch_size` latents are one transformer token. A
caption is at most `caption_tokens` tokens, one a word and one a symbol. There is no third text
encoder: run the pipeline with `max_sequence_length=0`, so that no T5 tokens join the context. A
stored folder is in bf16; load it with `text_encoder_3=None, tokenizer_3=None` and one `dtype` for
all parts.
"""

import json
import string
from dataclasses import dataclass
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import CLIPTextConfig, CLIPTextModelWithProjection, CLIPTokenizer

CELL = 8
"""Pixels of a latent's side."""
START, END = "<|startoftext|>", "<|endoftext|>"


@dataclass(frozen=True)
class Shape:
    """What a world asks of its networks."""

    height: int
    """Pixels of an image, a multiple of `CELL * patch_size`."""
    width: int
    """As `height`."""
    latent_channels: int
    """Numbers that describe a cell."""
    patch_size: int
    """Latents on a side of one transformer token."""
    caption_tokens: int
    """Most tokens of a caption, its start and end included."""
    words: tuple[str, ...]
    """Lower-case words that are one token each."""
    symbols: str = ""
    """Characters beside a to z that captions spell, one token each."""
    num_heads: int = 5
    """Attention heads of 32 in the transformer."""


def build_pipeline(folder: Path, shape: Shape, seed: int = 0) -> StableDiffusion3Pipeline:
    """The whole untrained pipeline; the tokenizer's two files are written to `folder`/tokenizer."""
    torch.manual_seed(seed)
    tokenizer = build_tokenizer(folder / "tokenizer", shape)
    return StableDiffusion3Pipeline(
        transformer=build_transformer(shape),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=build_autoencoder(shape),
        text_encoder=build_text_encoder(tokenizer, shape.caption_tokens, width=64, seed=seed),
        tokenizer=tokenizer,
        text_encoder_2=build_text_encoder(
            tokenizer, shape.caption_tokens, width=128, seed=seed + 1
        ),
        tokenizer_2=tokenizer,
        text_encoder_3=None,
        tokenizer_3=None,
    )


def build_transformer(shape: Shape) -> SD3Transformer2DModel:
    """The velocity network, some 3 M parameters; latents (B, channels, height/8, width/8)."""
    side = max(shape.height, shape.width) // CELL
    return SD3Transformer2DModel(
        sample_size=side,
        patch_size=shape.patch_size,
        in_channels=shape.latent_channels,
        out_channels=shape.latent_channels,
        num_layers=4,
        attention_head_dim=32,
        num_attention_heads=shape.num_heads,
        joint_attention_dim=64 + 128,
        caption_projection_dim=32 * shape.num_heads,
        pooled_projection_dim=64 + 128,
        pos_embed_max_size=side // shape.patch_size,
        qk_norm="rms_norm",
    )


def build_autoencoder(shape: Shape) -> AutoencoderKL:
    """Images (B, 3, height, width) in [-1, 1] to latents and back; no attention."""
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 4,
        up_block_types=("UpDecoderBlock2D",) * 4,
        block_out_channels=(8, 16, 32, 64),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=shape.latent_channels,
        sample_size=max(shape.height, shape.width),
        scaling_factor=1.0,
        shift_factor=0.0,
        mid_block_add_attention=False,
    )


def build_text_encoder(
    tokenizer: CLIPTokenizer, caption_tokens: int, width: int, seed: int
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
            max_position_embeddings=caption_tokens,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def build_tokenizer(folder: Path, shape: Shape) -> CLIPTokenizer:
    """A CLIP tokenizer that knows each word and symbol as one token; writes its two files."""
    vocab, merges = byte_pairs(shape.words, shape.symbols)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "vocab.json").write_text(json.dumps(vocab))
    (folder / "merges.txt").write_text("#version: 0.2\n" + "\n".join(map(" ".join, merges)) + "\n")
    return CLIPTokenizer.from_pretrained(folder, model_max_length=shape.caption_tokens)


def byte_pairs(
    words: tuple[str, ...], symbols: str = ""
) -> tuple[dict[str, int], list[tuple[str, str]]]:
    """Vocabulary and merge list under which byte-pair encoding makes each word one token."""
    letters = string.ascii_lowercase + symbols
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
