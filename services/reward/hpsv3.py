"""HPSv3: Qwen2-VL reads the image and an instruction; a head reads its state at one token.

    score = head(h)[0],  head = Linear ReLU Linear ReLU Linear,  in float32

with h the last hidden state at `<|Reward|>`. Every image is resized to about 256 x 28 x 28 pixels.
"""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from services.reward import qwen_vl
from services.reward.checkpoints import Placement, fill, load_pretrained, read_tensors, ready
from services.reward.contract import Answer

REWARD_TOKEN = "<|Reward|>"
PIXELS = 256 * 28 * 28


class HpsV3:
    """Ma and others' model; `base` is the Qwen2-VL that it was trained from."""

    weights_need: ClassVar[tuple[str, ...]] = ()
    base_need: ClassVar[tuple[str, ...]] = qwen_vl.NEEDS

    def __init__(self, weights: Path, base: Path, placement: Placement, prompt_file: Path) -> None:
        """`prompt_file` is the authors' instruction, with {prompt} and the token in it."""
        self._weights = weights
        self._base = base
        self._placement = placement
        self._question = qwen_vl.read_question(prompt_file, ("{prompt}", REWARD_TOKEN))
        self._loaded: tuple[qwen_vl.QwenInputs, Any, nn.Module] | None = None

    def prepare(self) -> None:
        """Load the models, once."""
        self._loaded = self._loaded or self._load()

    @torch.inference_mode()
    def score(self, images: Sequence[NDArray[np.uint8]], prompts: Sequence[str]) -> list[Answer]:
        """The predicted mean (about -5 to 15); the head's second output, its spread, is unused."""
        inputs, model, head = self._loaded = self._loaded or self._load()
        # A reward token in somebody's prompt would be read in the real one's place.
        clean = [prompt.replace(REWARD_TOKEN, "") for prompt in prompts]
        texts = [self._question.replace("{prompt}", prompt) for prompt in clean]
        arguments = qwen_vl.on_device(inputs.build(images, texts, "right"), model)
        states = model(**arguments).last_hidden_state
        token = inputs.tokenizer.convert_tokens_to_ids(REWARD_TOKEN)
        at_token = states[arguments["input_ids"] == token]
        return head(at_token.float())[:, 0].tolist()

    def _load(self) -> tuple[qwen_vl.QwenInputs, Any, nn.Module]:
        from transformers import Qwen2VLConfig, Qwen2VLModel

        inputs = qwen_vl.QwenInputs(self._base, PIXELS)
        inputs.tokenizer.add_tokens([REWARD_TOKEN], special_tokens=True)
        network, of_head = split(read_tensors(self._weights))
        config: Any = Qwen2VLConfig.from_pretrained(self._base, local_files_only=True)
        # The authors cut the embedding to the tokenizer's length after they added their token.
        config.text_config.vocab_size = len(network["language_model.embed_tokens.weight"])
        model = load_pretrained(
            Qwen2VLModel,
            None,
            config=config,
            state_dict=network,
            dtype=self._placement.torch_dtype,
        )
        head = build_head(of_head, config.text_config.hidden_size, self._weights)
        return (
            inputs,
            ready(model, self._placement),
            ready(head, Placement(self._placement.device)),
        )


def split(tensors: Mapping[str, Tensor]) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """The network's parameters under transformers' names, and the head's; either naming is read.

    Before transformers 4.52 the language model was `model.` and the tower `visual.`; since then
    they are `model.language_model.` and `model.visual.`.
    """
    new_names = any(name.startswith("model.language_model.") for name in tensors)
    network: dict[str, Tensor] = {}
    head: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if name.startswith("rm_head."):
            head[name.removeprefix("rm_head.")] = tensor.float()
        elif name.startswith("model."):
            inner = name.removeprefix("model.")
            network[inner if new_names else f"language_model.{inner}"] = tensor
        elif name.startswith("visual."):
            network[name] = tensor
    if "language_model.embed_tokens.weight" not in network or not head:
        raise ValueError(
            "this is not HPSv3: it has no rm_head or no language model, but "
            f"{', '.join(list(tensors)[:3])}"
        )
    return network, head


def build_head(tensors: Mapping[str, Tensor], width: int, source: Path) -> nn.Sequential:
    """The head (B, width) to (B, 2) that these parameters are; its dropout rests."""
    middle, narrow = len(tensors["0.bias"]), len(tensors["3.bias"])
    head = nn.Sequential(
        nn.Linear(width, middle),
        nn.ReLU(),
        nn.Identity(),
        nn.Linear(middle, narrow),
        nn.ReLU(),
        nn.Linear(narrow, len(tensors["5.bias"])),
    )
    fill(head, tensors, source)
    return head
