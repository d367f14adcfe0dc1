"""A vision language model in this process: what its next token would be, given image and text."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from services.reward.checkpoints import Placement, ready

NEEDS = ("config.json", "tokenizer_config.json")
"""What a checkpoint's folder holds besides weights."""


class LocalVlm:
    """Any image-text-to-text model of transformers that has a chat template."""

    def __init__(self, weights: Path, placement: Placement) -> None:
        """Reads `weights`, a folder as transformers writes it; ValueError where it is no such."""
        from transformers import AutoModelForImageTextToText, AutoProcessor

        try:
            # Left, so that every row's answer follows its last token.
            self._processor: Any = AutoProcessor.from_pretrained(
                weights, local_files_only=True, padding_side="left"
            )
            model = AutoModelForImageTextToText.from_pretrained(
                weights, local_files_only=True, use_safetensors=True
            )
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"{weights} is no vision language model that transformers can load: {error}"
            ) from error
        if not getattr(self._processor, "chat_template", None):
            raise ValueError(f"{weights} has no chat template; take an instruction-tuned model")
        self._model: Any = ready(model, placement)

    @torch.inference_mode()
    def next_token(self, images: Sequence[NDArray[np.uint8]], texts: Sequence[str]) -> Tensor:
        """(N, V) float32 probabilities of the answer's first token; a row is an RGB image, a text.

        `generate` is asked, not the module, since it knows each family's positions under padding.
        """
        inputs = self._processor(
            text=[self._chat(text) for text in texts],
            images=[[Image.fromarray(image)] for image in images],
            padding=True,
            return_tensors="pt",
        ).to(self._model.device, self._model.dtype)
        generated = self._model.generate(
            **inputs,
            max_new_tokens=1,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        return generated.logits[0].float().softmax(dim=-1).cpu()

    def tokens(self, meaning: Callable[[str], str]) -> dict[str, list[int]]:
        """Ids of all tokens by what their text means; those that mean "" are left out."""
        found: dict[str, list[int]] = {}
        count = len(self._processor.tokenizer)
        texts = self._processor.tokenizer.batch_decode([[token] for token in range(count)])
        for token, text in enumerate(texts):
            if key := meaning(text):
                found.setdefault(key, []).append(token)
        return found

    def _chat(self, text: str) -> str:
        content = [{"type": "image"}, {"type": "text", "text": text}]
        return self._processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True, tokenize=False
        )
