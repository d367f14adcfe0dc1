"""Builds a tiny random Stable Diffusion 3 checkpoint out of the real classes, for tests.

The geometry is SD3.5's in small: patches of 2, one dual-attention layer, rms-normed queries, two
CLIP encoders and, if asked, a T5 encoder whose features are wider than both CLIPs together.
"""

import string
from pathlib import Path

import torch
from diffusers import (
    AutoencoderKL,
    FlowMatchEulerDiscreteScheduler,
    SD3Transformer2DModel,
    StableDiffusion3Pipeline,
)
from transformers import (
    CLIPTextConfig,
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5Config,
    T5EncoderModel,
    T5Tokenizer,
)

PROMPTS = ("a red cat", "two blue dogs", "a cat left of a dog")
MAX_TOKENS = 12
CLIP_WIDTHS = (16, 24)
JOINT_WIDTH = 48


def build_checkpoint(folder: Path, with_t5: bool = False, seed: int = 0) -> Path:
    """Write the pipeline in diffusers' layout to `folder` and return it."""
    torch.manual_seed(seed)
    tokenizer = _clip_tokenizer()
    StableDiffusion3Pipeline(
        transformer=_randomised(_transformer()),
        scheduler=FlowMatchEulerDiscreteScheduler(shift=3.0),
        vae=_autoencoder(),
        text_encoder=_clip(tokenizer, CLIP_WIDTHS[0]),
        tokenizer=tokenizer,
        text_encoder_2=_clip(tokenizer, CLIP_WIDTHS[1]),
        tokenizer_2=tokenizer,
        text_encoder_3=_t5() if with_t5 else None,
        tokenizer_3=_t5_tokenizer() if with_t5 else None,
    ).save_pretrained(folder)
    return folder


def _transformer() -> SD3Transformer2DModel:
    return SD3Transformer2DModel(
        sample_size=8,
        patch_size=2,
        in_channels=4,
        out_channels=4,
        num_layers=2,
        attention_head_dim=8,
        num_attention_heads=2,
        joint_attention_dim=JOINT_WIDTH,
        caption_projection_dim=16,
        pooled_projection_dim=sum(CLIP_WIDTHS),
        pos_embed_max_size=8,
        dual_attention_layers=(0,),
        qk_norm="rms_norm",
    )


def _randomised(transformer: SD3Transformer2DModel) -> SD3Transformer2DModel:
    # Weights large enough that timestep, text and every layer are visible in the output.
    with torch.no_grad():
        for parameter in transformer.parameters():
            parameter.add_(0.15 * torch.randn_like(parameter))
    return transformer


def _autoencoder() -> AutoencoderKL:
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * 2,
        up_block_types=("UpDecoderBlock2D",) * 2,
        block_out_channels=(8, 8),
        layers_per_block=1,
        norm_num_groups=4,
        latent_channels=4,
        sample_size=16,
        scaling_factor=1.3,
        shift_factor=0.1,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )


def _clip(tokenizer: CLIPTokenizer, width: int) -> CLIPTextModelWithProjection:
    return CLIPTextModelWithProjection(
        CLIPTextConfig(
            vocab_size=len(tokenizer),
            hidden_size=width,
            intermediate_size=2 * width,
            projection_dim=width,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=MAX_TOKENS,
            bos_token_id=tokenizer.bos_token_id,
            eos_token_id=tokenizer.eos_token_id,
            pad_token_id=tokenizer.pad_token_id,
        )
    )


def _clip_tokenizer() -> CLIPTokenizer:
    letters = string.ascii_lowercase
    tokens = [*letters, *(letter + "</w>" for letter in letters), "<|startoftext|>"]
    vocab = {token: number for number, token in enumerate([*tokens, "<|endoftext|>"])}
    return CLIPTokenizer(vocab=vocab, merges=[], model_max_length=MAX_TOKENS)


def _t5() -> T5EncoderModel:
    return T5EncoderModel(
        T5Config(vocab_size=64, d_model=JOINT_WIDTH, d_kv=8, d_ff=32, num_layers=1, num_heads=2)
    )


def _t5_tokenizer() -> T5Tokenizer:
    pieces = [("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0), ("\u2581", -2.0)]
    pieces += [(letter, -3.0) for letter in string.ascii_lowercase]
    return T5Tokenizer(vocab=pieces, extra_ids=0, model_max_length=MAX_TOKENS)
