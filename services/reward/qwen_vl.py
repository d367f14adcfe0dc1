"""What a Qwen2-VL is fed, one image and one text a row: transformers' parts without torchvision.

transformers' own processor for this family wants a video processor, and that wants torchvision; so
its image processor and its tokenizer are joined here, as that processor joins them.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

IMAGE = "<|image_pad|>"
NEEDS = ("config.json", "preprocessor_config.json", "tokenizer_config.json")


class QwenInputs:
    """Images and texts to the model's arguments."""

    def __init__(self, base: Path, pixels: int | None = None) -> None:
        """`pixels` is how many every image is resized to, about; None is the checkpoint's range."""
        from transformers import AutoTokenizer, Qwen2VLImageProcessorPil

        edges = {"shortest_edge": pixels, "longest_edge": pixels}
        changes: Any = {"size": edges} if pixels else {}
        self.tokenizer: Any = AutoTokenizer.from_pretrained(base, local_files_only=True)
        self._image_processor = Qwen2VLImageProcessorPil.from_pretrained(
            base, local_files_only=True, **changes
        )
        if self.tokenizer.chat_template is None:
            raise ValueError(
                f"the tokenizer in {base} has no chat template; fetch the whole folder"
            )

    def build(
        self, images: Sequence[NDArray[np.uint8]], texts: Sequence[str], padding_side: str
    ) -> dict[str, Tensor]:
        """Arguments for one user turn a row, image first, up to where the model answers."""
        pictures = [Image.fromarray(image) for image in images]
        seen = self._image_processor(pictures, return_tensors="pt")
        grids: Tensor = seen["image_grid_thw"]
        places = (grids.prod(dim=1) // self._image_processor.merge_size**2).tolist()
        turns = [
            # An image mark in somebody's prompt would claim pixels that are not there.
            self._turn(text.replace(IMAGE, "")).replace(IMAGE, IMAGE * count, 1)
            for text, count in zip(texts, places, strict=True)
        ]
        tokens = self.tokenizer(turns, padding=True, padding_side=padding_side, return_tensors="pt")
        image_id = self.tokenizer.convert_tokens_to_ids(IMAGE)
        return {
            "input_ids": tokens["input_ids"],
            "attention_mask": tokens["attention_mask"],
            "mm_token_type_ids": (tokens["input_ids"] == image_id).int(),
            "pixel_values": seen["pixel_values"],
            "image_grid_thw": grids,
        }

    def _turn(self, text: str) -> str:
        return self.tokenizer.apply_chat_template(
            user_turn(text), tokenize=False, add_generation_prompt=True
        )


def user_turn(text: str) -> list[dict[str, Any]]:
    """What a person says to a chat template: one image, then the text."""
    content = [{"type": "image"}, {"type": "text", "text": text}]
    return [{"role": "user", "content": content}]


def read_question(file: Path, must_hold: Sequence[str]) -> str:
    """The text that a model was trained to read; ValueError where it lacks one of `must_hold`."""
    text = file.read_text("utf-8")
    for part in must_hold:
        if text.count(part) != 1:
            raise ValueError(
                f"option prompt_file={str(file)!r} holds {part!r} {text.count(part)} times; "
                "it is needed exactly once (docs/rewards.md)"
            )
    return text


def on_device(inputs: dict[str, Tensor], model: Any) -> dict[str, Tensor]:
    """The arguments where the model is, pixels in its type."""
    return {
        name: tensor.to(model.device, model.dtype if tensor.is_floating_point() else None)
        for name, tensor in inputs.items()
    }
