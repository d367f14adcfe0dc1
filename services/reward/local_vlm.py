"""A vision language model in this process: what its next token would be, given image and text."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from services.reward.checkpoints import Placement, load_pretrained, ready
from services.reward.qwen_vl import QwenInputs, on_device, user_turn

NEEDS = ("config.json", "tokenizer_config.json")
"""What a checkpoint's folder holds besides weights."""
QWEN_FAMILIES = ("qwen2_vl", "qwen2_5_vl")
"""Whose own processors want torchvision, and have a twin here that does not."""


class LocalVlm:
    """Any image-text-to-text model of transformers that has a chat template."""

    def __init__(self, weights: Path, placement: Placement) -> None:
        """Reads `weights`, a folder as transformers writes it; ValueError where it is no such."""
        from transformers import AutoConfig, AutoModelForImageTextToText

        try:
            family = AutoConfig.from_pretrained(weights, local_files_only=True).model_type
            inputs = QwenInputs if family in QWEN_FAMILIES else ProcessorInputs
            self._inputs = inputs(weights)
            model = load_pretrained(AutoModelForImageTextToText, weights)
        except ImportError as error:
            lacks = str(error).strip().splitlines()[0]
            raise ValueError(
                f"{weights}: {lacks} Install it beside the same torch, or take a family that goes "
                f"without: LLaVA, {', '.join(QWEN_FAMILIES)}"
            ) from error
        except (OSError, ValueError, KeyError) as error:
            raise ValueError(
                f"{weights} is no vision language model that transformers can load: {error}"
            ) from error
        self._model: Any = ready(model, placement)

    @torch.inference_mode()
    def next_token(self, images: Sequence[NDArray[np.uint8]], texts: Sequence[str]) -> Tensor:
        """(N, V) float32 probabilities of the answer's first token; a row is an RGB image, a text.

        `generate` is asked, not the module, since it knows each family's positions under padding.
        """
        # Left, so that every row's answer follows its last token.
        inputs = self._inputs.build(images, texts, "left")
        generated = self._model.generate(
            **on_device(inputs, self._model),
            max_new_tokens=1,
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
        return generated.logits[0].float().softmax(dim=-1).cpu()

    def tokens(self, meaning: Callable[[str], str]) -> dict[str, list[int]]:
        """Ids of all tokens by what their text means; those that mean "" are left out."""
        found: dict[str, list[int]] = {}
        tokenizer = self._inputs.tokenizer
        texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
        for token, text in enumerate(texts):
            if key := meaning(text):
                found.setdefault(key, []).append(token)
        return found


class ProcessorInputs:
    """Images and texts to a model's arguments, by the processor that its checkpoint names."""

    def __init__(self, weights: Path) -> None:
        """ImportError where the processor needs what is not installed, such as torchvision."""
        from transformers import AutoProcessor

        self._processor: Any = AutoProcessor.from_pretrained(weights, local_files_only=True)
        self.tokenizer: Any = getattr(self._processor, "tokenizer", None)
        if self.tokenizer is None or not self._processor.chat_template:
            raise ValueError(
                "its processor has no tokenizer or no chat template; take an instruction-tuned "
                "model that sees images"
            )

    def build(
        self, images: Sequence[NDArray[np.uint8]], texts: Sequence[str], padding_side: str
    ) -> dict[str, Tensor]:
        """Arguments for one user turn a row, image first, up to where the model answers."""
        turns = [
            self._processor.apply_chat_template(
                user_turn(text), add_generation_prompt=True, tokenize=False
            )
            for text in texts
        ]
        pictures = [[Image.fromarray(image)] for image in images]
        settings = {"padding": True, "padding_side": padding_side, "return_tensors": "pt"}
        return dict(self._processor(text=turns, images=pictures, **settings))
