"""Stable Diffusion 3's prompt encoding: two CLIPs side by side, then the T5 tokens.

    prompt_embeds = cat_tokens( pad(cat_features(clip_1[-2], clip_2[-2])), t5 )     (N, S, D)
    pooled_prompt_embeds = cat_features(pooled_1, pooled_2)                         (N, P)
Equal to `StableDiffusion3Pipeline.encode_prompt`; without a T5 its tokens are zeros, as there.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from diffusers import StableDiffusion3Pipeline
from torch import Tensor
from torch.nn.functional import pad
from transformers import (
    CLIPTextModelWithProjection,
    CLIPTokenizer,
    T5EncoderModel,
    T5Tokenizer,
)

from tdm_core.types import Conditioning

CACHE_BYTES = 512 * 2**20


@dataclass(frozen=True)
class Encoders:
    """The checkpoint's text encoders with their tokenizers."""

    clips: list[tuple[Any, Any]]
    """(tokenizer, CLIP text model with projection), both of them."""
    t5: tuple[Any, Any] | None
    """(tokenizer, T5 encoder); None where the checkpoint has none or no T5 tokens are wanted."""


def load_encoders(
    source: str, max_sequence_length: int, device: torch.device, dtype: torch.dtype
) -> Encoders:
    """Read the encoders of a diffusers checkpoint (folder or hub name), frozen."""

    def read(model_class: Any, tokenizer_class: Any, suffix: str) -> tuple[Any, Any]:
        model = model_class.from_pretrained(
            source, subfolder=f"text_encoder{suffix}", dtype=dtype, use_safetensors=True
        )
        tokenizer = tokenizer_class.from_pretrained(source, subfolder=f"tokenizer{suffix}")
        return tokenizer, model.to(device).eval().requires_grad_(False)

    return Encoders(
        clips=[read(CLIPTextModelWithProjection, CLIPTokenizer, s) for s in ("", "_2")],
        t5=read(T5EncoderModel, T5Tokenizer, "_3")
        if max_sequence_length and has_t5(source)
        else None,
    )


def has_t5(source: str) -> bool:
    """Whether a diffusers checkpoint comes with the long text encoder."""
    index = cast(dict[str, Any], StableDiffusion3Pipeline.load_config(source))
    return (index.get("text_encoder_3") or [None])[0] is not None


@torch.no_grad()
def encode(
    encoders: Encoders, text: str, joint_width: int, max_sequence_length: int
) -> Conditioning:
    """One row of conditioning, in the encoders' dtype and on their device."""
    # Both CLIPs pad to the first one's length, as the pipeline does.
    length = encoders.clips[0][0].model_max_length
    hidden, pooled = [], []
    for tokenizer, model in encoders.clips:
        output = model(_tokens(tokenizer, text, length, model), output_hidden_states=True)
        hidden.append(output.hidden_states[-2])
        pooled.append(output.text_embeds)
    clip = torch.cat(hidden, dim=-1)
    if encoders.t5 is None:
        long = clip.new_zeros(1, max_sequence_length, joint_width)
    else:
        tokenizer, model = encoders.t5
        long = model(_tokens(tokenizer, text, max_sequence_length, model))[0]
    clip = pad(clip, (0, joint_width - clip.shape[-1]))
    return {
        "prompt_embeds": torch.cat([clip, long], dim=1),
        "pooled_prompt_embeds": torch.cat(pooled, dim=-1),
    }


def _tokens(tokenizer: Any, text: str, length: int, model: Any) -> Tensor:
    tokens = tokenizer(
        [text], padding="max_length", max_length=length, truncation=True, return_tensors="pt"
    )
    return tokens.input_ids.to(model.device)


class PromptEncoder:
    """Encodes texts one at a time and remembers them; the encoders load at the first new text.

    One at a time because a row must not depend, even in its last bit, on what it was batched with.
    """

    def __init__(
        self, load: Callable[[], Encoders], joint_width: int, max_sequence_length: int
    ) -> None:
        """`load` reads the encoders; `joint_width` is D of prompt_embeds."""
        self._load = load
        self._joint_width = joint_width
        self._max_sequence_length = max_sequence_length
        self._encoders: Encoders | None = None
        self._cache: OrderedDict[str, Conditioning] = OrderedDict()
        self._cached_bytes = 0

    @property
    def is_loaded(self) -> bool:
        """Whether the encoders take memory now."""
        return self._encoders is not None

    def release(self) -> None:
        """Free the encoders; remembered texts stay, and a new one loads them again."""
        self._encoders = None

    def __call__(self, texts: Sequence[str]) -> Conditioning:
        """One row a text, on the CPU."""
        rows = [self._row(text) for text in texts]
        return {name: torch.cat([row[name] for row in rows]) for name in rows[0]}

    def _row(self, text: str) -> Conditioning:
        if text not in self._cache:
            self._encoders = self._encoders or self._load()
            row = encode(self._encoders, text, self._joint_width, self._max_sequence_length)
            self._remember(text, {name: value.cpu() for name, value in row.items()})
        self._cache.move_to_end(text)
        return self._cache[text]

    def _remember(self, text: str, row: Conditioning) -> None:
        self._cache[text] = row
        self._cached_bytes += _num_bytes(row)
        while self._cached_bytes > CACHE_BYTES and len(self._cache) > 1:
            self._cached_bytes -= _num_bytes(self._cache.popitem(last=False)[1])


def _num_bytes(row: Conditioning) -> int:
    return sum(value.numel() * value.element_size() for value in row.values())
