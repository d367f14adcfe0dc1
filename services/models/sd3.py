"""Stable Diffusion 3 and 3.5 on diffusers' own classes, from a folder or a hub name.

Velocity: v = transformer(x, timestep = 1000 s, prompt_embeds, pooled_prompt_embeds), in bfloat16
autocast where `model.dtype` asks for it, returned in the latents' dtype. Images: the VAE's decode
of z / scaling_factor + shift_factor.
"""

from collections.abc import Mapping, Sequence
from functools import cached_property
from typing import Any, cast

import torch
from diffusers import AutoencoderKL, AutoencoderTiny, SD3Transformer2DModel
from diffusers.utils import logging as diffusers_logging
from torch import Tensor, nn
from transformers.utils import logging as transformers_logging

from services.config import ModelConfig
from services.models.roles import FullCopies, Roles, copy_tensors, load_tensors, tensors_of
from services.models.sd3_text import PromptEncoder, load_encoders
from services.models.sd3_weights import read_generator, write_lora, write_pipeline
from tdm_core.denoiser import Denoiser
from tdm_core.types import Conditioning

VAE_CLASSES = {"AutoencoderKL": AutoencoderKL, "AutoencoderTiny": AutoencoderTiny}
DECODE_ROWS = 16
"""Images the VAE decodes at once; bounds its memory."""


class Sd3Backbone:
    """See `Backbone`."""

    def __init__(self, model: ModelConfig, roles: Sequence[str], device: torch.device) -> None:
        """Reads the transformer now; text encoders and VAE when they are first used."""
        diffusers_logging.disable_progress_bar()
        transformers_logging.disable_progress_bar()
        self.device = device
        self.dtype = torch.float32
        self._model = model
        self._half = model.dtype == "bfloat16"
        transformer = self._read_transformer()
        self._config: Mapping[str, Any] = transformer.config
        self._roles = self._make_roles(transformer, roles)
        self.latent_shape = self._latent_shape()
        self._unconditional: Conditioning | None = None
        self._encoder = PromptEncoder(
            lambda: load_encoders(
                model.teacher, model.max_sequence_length, device, self._frozen_dtype
            ),
            joint_width=self._config["joint_attention_dim"],
            max_sequence_length=model.max_sequence_length,
        )

    @property
    def _frozen_dtype(self) -> torch.dtype:
        return torch.bfloat16 if self._half else torch.float32

    def _read_transformer(self) -> SD3Transformer2DModel:
        # Full copies train every weight, in float32; under adapters the backbone is frozen.
        dtype = self._frozen_dtype if self._model.roles == "lora" else torch.float32
        try:
            transformer = SD3Transformer2DModel.from_pretrained(
                self._model.teacher,
                subfolder="transformer",
                torch_dtype=dtype,
                use_safetensors=True,
            )
        except OSError as error:
            raise ValueError(
                f"model.teacher={self._model.teacher!r}: no readable transformer ({error}); "
                "give a folder in diffusers' format or a hub name"
            ) from error
        cast(nn.Module, transformer).to(self.device).eval()
        return transformer

    def _make_roles(self, transformer: SD3Transformer2DModel, roles: Sequence[str]) -> Roles:
        model = self._model
        start = model.generator if "generator" in roles else None
        if model.roles == "full":
            weights = read_generator(start, transformer) if start else None
            return FullCopies(transformer, roles, weights)
        from services.models.lora import LoraRoles

        return LoraRoles(transformer, roles, model.lora_rank, model.lora_alpha, start)

    def _latent_shape(self) -> tuple[int, int, int]:
        scale = 2 ** (len(self._vae_config["block_out_channels"]) - 1)
        own, asked = self._config["sample_size"] * scale, self._model.image_size
        unit = scale * self._config["patch_size"]
        largest = self._config["pos_embed_max_size"] * unit
        if asked is not None and any(side % unit or side > largest for side in asked):
            raise ValueError(
                f"model.resolution={self._model.resolution}: allowed are multiples of {unit} up to "
                f"{largest}"
            )
        height, width = asked or (own, own)
        return (self._config["in_channels"], height // scale, width // scale)

    @cached_property
    def _vae_config(self) -> Mapping[str, Any]:
        config = AutoencoderKL.load_config(self._model.teacher, subfolder="vae")
        return cast(dict[str, Any], config)

    @cached_property
    def _vae(self) -> AutoencoderKL | AutoencoderTiny:
        name = self._vae_config["_class_name"]
        if name not in VAE_CLASSES:
            raise ValueError(
                f"model.teacher={self._model.teacher!r} has the VAE class {name}; "
                f"allowed are {', '.join(VAE_CLASSES)}"
            )
        vae = VAE_CLASSES[name].from_pretrained(
            self._model.teacher,
            subfolder="vae",
            torch_dtype=self._frozen_dtype,
            use_safetensors=True,
        )
        return vae.to(self.device).eval().requires_grad_(False)

    @property
    def unconditional(self) -> Conditioning:
        """See `Backbone`. Encoders loaded only for this are freed again."""
        if self._unconditional is None:
            was_loaded = self._encoder.is_loaded
            self._unconditional = self.encode_prompts([""])
            if not was_loaded:
                self._encoder.release()
        return self._unconditional

    def encode_prompts(self, texts: Sequence[str]) -> Conditioning:
        """See `Backbone`: prompt_embeds (N, S, D), pooled_prompt_embeds (N, P)."""
        return {name: rows.to(self.device) for name, rows in self._encoder(texts).items()}

    @torch.no_grad()
    def decode(self, latents_NCHW: Tensor) -> Tensor:
        """See `Backbone`."""
        config: Mapping[str, Any] = self._vae.config
        latents = latents_NCHW / config["scaling_factor"] + (config["shift_factor"] or 0.0)
        images = [
            self._vae.decode(rows.to(self._vae.dtype), return_dict=False)[0].float()
            for rows in latents.split(DECODE_ROWS)
        ]
        unit = (torch.cat(images) / 2 + 0.5).clamp(0, 1)
        return (unit * 255).round().to(torch.uint8).cpu()

    def denoiser(self, role: str) -> Denoiser:
        """See `Backbone`."""
        self._roles.module(role)  # a role that is not loaded fails here, not in the first step

        def velocity(latents: Tensor, sigma: Tensor, conditioning: Conditioning) -> Tensor:
            with torch.autocast(self.device.type, torch.bfloat16, enabled=self._half):
                output = self._roles.run(
                    role,
                    hidden_states=latents,
                    timestep=1000 * sigma,
                    # float32 rows: the timestep's embedding is rounded to the pooled rows' dtype.
                    encoder_hidden_states=conditioning["prompt_embeds"].to(latents.dtype),
                    pooled_projections=conditioning["pooled_prompt_embeds"].to(latents.dtype),
                    return_dict=False,
                )[0]
            return output.to(latents.dtype)

        return velocity

    def module(self, role: str) -> nn.Module:
        """See `Backbone`."""
        return self._roles.module(role)

    def parameters(self, role: str) -> list[nn.Parameter]:
        """See `Backbone`."""
        return list(self._roles.named_parameters(role).values())

    def tensors(self, role: str) -> dict[str, Tensor]:
        """See `Backbone`."""
        return tensors_of(self._roles, role)

    def load(self, role: str, tensors: Mapping[str, Tensor]) -> None:
        """See `Backbone`."""
        load_tensors(self._roles, role, tensors)

    def copy_role(self, source: str, target: str) -> None:
        """See `Backbone`."""
        copy_tensors(self._roles, source, target)

    def save_generator(self, folder: str, tensors: Mapping[str, Tensor]) -> str:
        """See `Backbone`: a LoRA file, or a whole pipeline where roles are full copies."""
        if self._model.roles == "lora":
            return write_lora(folder, tensors, self._model.lora_rank, self._model.lora_alpha)
        return write_pipeline(folder, self._model.teacher, self._config, tensors)
