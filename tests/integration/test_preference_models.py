"""Preference models' formulas on tiny random checkpoints of transformers' real classes."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor
from torch.nn.functional import linear, relu
from torch.testing import assert_close
from transformers import (
    AutoTokenizer,
    BertTokenizer,
    CLIPConfig,
    CLIPImageProcessorPil,
    CLIPModel,
    Qwen2_5_VLForConditionalGeneration,
    Qwen2VLModel,
)

from services.config import RewardConfig
from services.reward import hpsv3
from services.reward.checkpoints import Placement
from services.reward.clip_preference import on_black_square
from services.reward.qwen_vl import QwenInputs, on_device
from services.reward.unified_reward import UnifiedReward
from services.reward.worker import RewardWorker
from tdm_core.types import ImageGroup, Prompt
from tests import reference_towers
from tests.tiny_vision import build_bert_tokenizer, build_clip, build_qwen2_5_vl, build_qwen2_vl

pytestmark = pytest.mark.integration

PROMPT = "a red cat on a mat"
CLIP_MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(3, 1, 1)
CLIP_STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(3, 1, 1)


def pictures(count: int = 3, size: tuple[int, int] = (40, 30)) -> list[np.ndarray]:
    rng = np.random.default_rng(5)
    return [rng.integers(0, 256, (*size, 3), dtype=np.uint8) for _ in range(count)]


def scores(images: list[np.ndarray], prompt: str = PROMPT, **options) -> list[float]:
    """What the reward says, by way of a worker that cuts its batch."""
    config = RewardConfig(
        name="p", kind="preference", batch_size=2, retries=0, options={"device": "cpu"} | options
    )
    stacked = torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)[:, None].contiguous()
    records = RewardWorker(config).evaluate([ImageGroup(0, Prompt("p:1", prompt), 0, stacked)])
    assert [record.reason for record in records if record.state != "ready"] == []
    return [record.value for record in records if record.value is not None]


def randoms(rng: torch.Generator, **shapes: tuple[int, ...]) -> dict[str, Tensor]:
    return {name: 0.3 * torch.randn(shape, generator=rng) for name, shape in shapes.items()}


@pytest.fixture(scope="module")
def clip(tmp_path_factory) -> Path:
    return build_clip(tmp_path_factory.mktemp("clip"))


@pytest.fixture(scope="module")
def clip_outputs(clip):
    """The library's own forward of all pictures and the prompt."""
    processor, tokenizer = (
        CLIPImageProcessorPil.from_pretrained(clip),
        AutoTokenizer.from_pretrained(clip),
    )
    images = [Image.fromarray(image) for image in pictures()]
    with torch.inference_mode():
        return CLIPModel.from_pretrained(clip)(
            **tokenizer([PROMPT], return_tensors="pt"), **processor(images, return_tensors="pt")
        )


def test_pickscore_is_the_models_own_logit(clip, clip_outputs):
    got = scores(pictures(), model="pickscore", weights=str(clip), base=str(clip))
    assert got == pytest.approx(clip_outputs.logits_per_image[:, 0].tolist(), abs=1e-4)


def test_clip_score_is_a_hundred_cosines_and_never_negative(clip, clip_outputs):
    cosines = (clip_outputs.image_embeds @ clip_outputs.text_embeds[0]).tolist()
    assert min(cosines) < 0 < max(cosines), "the pictures show both cases"
    got = scores(pictures(), model="clip_score", weights=str(clip), base=str(clip))
    assert got == pytest.approx([100 * max(cosine, 0) for cosine in cosines], abs=1e-3)


def test_aesthetic_is_the_head_of_the_normed_image_embedding_whatever_the_prompt(
    clip, clip_outputs, tmp_path
):
    rng = torch.Generator().manual_seed(0)
    linear_head = randoms(rng, weight=(1, 8), bias=(1,))
    stack = randoms(rng, **{"layers.0.weight": (5, 8), "layers.0.bias": (5,)})
    stack |= randoms(rng, **{"layers.2.weight": (1, 5), "layers.2.bias": (1,)})
    x = clip_outputs.image_embeds
    by_hand = {
        "linear": linear(x, linear_head["weight"], linear_head["bias"]),
        "stack": linear(
            linear(x, stack["layers.0.weight"], stack["layers.0.bias"]),
            stack["layers.2.weight"],
            stack["layers.2.bias"],
        ),
    }
    for name, tensors in (("linear", linear_head), ("stack", stack)):
        file = tmp_path / f"{name}.safetensors"
        save_file(tensors, file)
        for prompt in (PROMPT, "something else"):
            got = scores(pictures(), prompt, model="aesthetic", weights=str(file), base=str(clip))
            assert got == pytest.approx(by_hand[name][:, 0].tolist(), abs=1e-5)


def open_clip_tensors(config: CLIPConfig) -> dict[str, Tensor]:
    """Random weights of this architecture under open_clip's names."""
    rng = torch.Generator().manual_seed(1)
    text, vision, out = config.text_config, config.vision_config, config.projection_dim
    places = (vision.image_size // vision.patch_size) ** 2 + 1
    v, t = vision.hidden_size, text.hidden_size
    patch = (v, 3, vision.patch_size, vision.patch_size)
    shapes: dict[str, tuple[int, ...]] = {
        **{"visual.class_embedding": (v,), "visual.positional_embedding": (places, v)},
        **{"visual.conv1.weight": patch, "visual.proj": (v, out), "text_projection": (t, out)},
        **{"token_embedding.weight": (text.vocab_size, t), "logit_scale": ()},
        "positional_embedding": (text.max_position_embeddings, t),
    }
    shapes |= {f"visual.ln_{place}.{part}": (v,) for place in ("pre", "post") for part in WB}
    shapes |= {f"ln_final.{part}": (t,) for part in WB}
    for prefix, width, inner in (
        ("visual.transformer", v, vision.intermediate_size),
        ("transformer", t, text.intermediate_size),
    ):
        for number in range(reference_towers.LAYERS):
            name = f"{prefix}.resblocks.{number}"
            shapes |= {f"{name}.ln_{i}.{part}": (width,) for i in (1, 2) for part in WB}
            shapes |= {f"{name}.attn.in_proj_weight": (3 * width, width)}
            shapes |= {f"{name}.attn.in_proj_bias": (3 * width,)}
            shapes |= layer(f"{name}.attn.out_proj", width, width)
            shapes |= layer(f"{name}.mlp.c_fc", inner, width)
            shapes |= layer(f"{name}.mlp.c_proj", width, inner)
    return randoms(rng, **shapes)


WB = ("weight", "bias")


def layer(name: str, outputs: int, inputs: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}


def test_hpsv2_is_the_cosine_of_the_whole_image_by_open_clips_weights(tmp_path):
    base = build_clip(tmp_path / "base", hidden_act="gelu")
    tensors = open_clip_tensors(CLIPConfig.from_pretrained(base))
    save_file(tensors, tmp_path / "HPS.safetensors")
    options = {"weights": str(tmp_path / "HPS.safetensors"), "base": str(base)}
    images = pictures(size=(28, 14))
    got = scores(images, model="hpsv2", **options)
    tokens = torch.tensor(AutoTokenizer.from_pretrained(base)(PROMPT).input_ids)
    text = reference_towers.open_clip_text(tokens, tensors, heads=2)
    for image, score in zip(images, got, strict=True):
        pixels = (on_black_square(image, 28) - CLIP_MEAN) / CLIP_STD
        seen = reference_towers.open_clip_image(pixels, tensors, heads=2)
        assert score == pytest.approx((seen @ text).item(), abs=1e-5)


def test_open_clip_weights_of_another_architecture_are_refused_with_the_difference(clip, tmp_path):
    base = build_clip(tmp_path / "base", hidden_act="gelu")
    tensors = open_clip_tensors(CLIPConfig.from_pretrained(base))
    tensors["visual.proj"] = torch.ones(16, 9)
    save_file(tensors, tmp_path / "HPS.safetensors")
    with pytest.raises(ValueError, match=r"visual_projection.weight has shape \(9, 16\)"):
        scores(
            pictures(),
            model="hpsv2",
            weights=str(tmp_path / "HPS.safetensors"),
            base=str(base),
        )


def image_reward_tensors(vocab: int) -> dict[str, Tensor]:
    """Random weights of ImageReward's architecture, small, under its names."""
    v, t, inner, patch = 128, 64, 96, 16
    see, read = "blip.visual_encoder", "blip.text_encoder"
    shapes: dict[str, tuple[int, ...]] = {
        **{f"{see}.cls_token": (1, 1, v), f"{see}.pos_embed": (1, 5, v)},
        **{f"{see}.patch_embed.proj.weight": (v, 3, patch, patch)},
        **{f"{see}.patch_embed.proj.bias": (v,)},
        **{f"{see}.norm.{part}": (v,) for part in WB},
        **{f"{read}.embeddings.word_embeddings.weight": (vocab, t)},
        **{f"{read}.embeddings.position_embeddings.weight": (40, t)},
        **{f"{read}.embeddings.LayerNorm.{part}": (t,) for part in WB},
        **layer("blip.vision_proj", 8, v),
        **{"blip.text_proj.weight": (8, t)},
    }
    for number in range(reference_towers.LAYERS):
        name = f"{see}.blocks.{number}"
        shapes |= {f"{name}.norm{i}.{part}": (v,) for i in (1, 2) for part in WB}
        shapes |= layer(f"{name}.attn.qkv", 3 * v, v) | layer(f"{name}.attn.proj", v, v)
        shapes |= layer(f"{name}.mlp.fc1", inner, v) | layer(f"{name}.mlp.fc2", v, inner)
        name = f"{read}.encoder.layer.{number}"
        for part, width in (("attention", t), ("crossattention", v)):
            shapes |= layer(f"{name}.{part}.self.query", t, t)
            shapes |= layer(f"{name}.{part}.self.key", t, width)
            shapes |= layer(f"{name}.{part}.self.value", t, width)
            shapes |= layer(f"{name}.{part}.output.dense", t, t)
            shapes |= {f"{name}.{part}.output.LayerNorm.{kind}": (t,) for kind in WB}
        shapes |= layer(f"{name}.intermediate.dense", inner, t)
        shapes |= layer(f"{name}.output.dense", t, inner)
        shapes |= {f"{name}.output.LayerNorm.{kind}": (t,) for kind in WB}
    shapes |= layer("mlp.layers.0", 6, t) | layer("mlp.layers.2", 1, 6)
    tensors = randoms(torch.Generator().manual_seed(2), **shapes)
    return tensors | {f"{read}.embeddings.position_ids": torch.arange(40)[None]}


def test_image_reward_is_the_normed_head_of_the_text_that_looks_at_the_image(tmp_path):
    base = build_bert_tokenizer(tmp_path / "bert")
    tokenizer = BertTokenizer.from_pretrained(base)
    tensors = image_reward_tensors(len(tokenizer))
    save_file(tensors, tmp_path / "ImageReward.safetensors")
    options = {"weights": str(tmp_path / "ImageReward.safetensors"), "base": str(base)}
    images = pictures(size=(32, 32))
    for prompt in ("a cat", "abc " * 40):  # the second is cut to 35 tokens
        got = scores(images, prompt, model="image_reward", **options)
        tokens = tokenizer(prompt, truncation=True, max_length=35, return_tensors="pt").input_ids[0]
        for image, score in zip(images, got, strict=True):
            pixels = (torch.from_numpy(image).permute(2, 0, 1) / 255 - CLIP_MEAN) / CLIP_STD
            seen = reference_towers.blip_image(pixels, tensors, heads=2)
            state = reference_towers.blip_text(tokens, seen, tensors, heads=1)[0]
            for number in (0, 2):
                state = reference_towers.dense(state, tensors, f"mlp.layers.{number}")
            by_hand = (state.item() - 0.16717362830052426) / 1.0333394966054072
            assert score == pytest.approx(by_hand, abs=1e-4)


HPSV3_QUESTION = "\nRate the image.\nPrompt - {prompt}\n\nRating: <|Reward|>\n\nEND\n"


@pytest.fixture(scope="module")
def hpsv3_parts(tmp_path_factory):
    """(options, model, head tensors) of a tiny HPSv3; its file has the older names."""
    folder = tmp_path_factory.mktemp("hpsv3")
    config = build_qwen2_vl(folder / "base")
    torch.manual_seed(3)
    model = Qwen2VLModel(config).eval()
    rng = torch.Generator().manual_seed(3)
    head = randoms(rng, **layer("0", 12, 16), **layer("3", 4, 12), **layer("5", 2, 4))
    named = {f"rm_head.{name}": tensor for name, tensor in head.items()}
    for name, tensor in model.state_dict().items():
        named[name.replace("language_model.", "model.")] = tensor.clone()
    save_file(named | {"lm_head.weight": torch.ones(2)}, folder / "HPSv3.safetensors")
    (folder / "prompt.txt").write_text(HPSV3_QUESTION)
    options = {"model": "hpsv3", "weights": str(folder / "HPSv3.safetensors")}
    options |= {"base": str(folder / "base"), "prompt_file": str(folder / "prompt.txt")}
    return options, model, head


def test_hpsv3_is_the_heads_first_output_at_the_reward_token(hpsv3_parts):
    options, model, head = hpsv3_parts
    images = pictures(2, (64, 64))
    inputs = QwenInputs(Path(options["base"]), hpsv3.PIXELS)
    inputs.tokenizer.add_tokens(["<|Reward|>"], special_tokens=True)
    for prompt in ("a cat", "a very long tale of a dog", "a <|Reward|> trap <|image_pad|>"):
        clean = prompt.replace("<|Reward|>", "").replace("<|image_pad|>", "")
        for image, score in zip(images, scores(images, prompt, **options), strict=True):
            arguments = inputs.build([image], [HPSV3_QUESTION.replace("{prompt}", clean)], "right")
            ids = arguments["input_ids"][0].tolist()
            assert ids.count(len(inputs.tokenizer) - 1) == 1
            # 64 x 64 becomes 448 x 448: 32 x 32 patches, merged by 2 x 2.
            assert arguments["image_grid_thw"].tolist() == [[1, 32, 32]]
            assert int(arguments["mm_token_type_ids"].sum()) == 256
            with torch.inference_mode():
                states = model(**on_device(arguments, model)).last_hidden_state[0]
            state = states[ids.index(len(inputs.tokenizer) - 1)]
            for number in (0, 3):
                state = relu(linear(state, head[f"{number}.weight"], head[f"{number}.bias"]))
            by_hand = linear(state, head["5.weight"], head["5.bias"])[0].item()
            assert score == pytest.approx(by_hand, abs=1e-4)


def test_a_rows_score_does_not_depend_on_the_longer_prompt_beside_it(hpsv3_parts):
    options, _, _ = hpsv3_parts
    files = {name: Path(options[name]) for name in ("weights", "base", "prompt_file")}
    scorer = hpsv3.HpsV3(files["weights"], files["base"], Placement("cpu"), files["prompt_file"])
    images, prompts = pictures(2, (64, 64)), ["a cat", "a very long tale of a dog and a cat"]
    together = scorer.score(images, prompts)
    alone = [scorer.score([image], [text])[0] for image, text in zip(images, prompts, strict=True)]
    assert together == pytest.approx(alone, abs=1e-5)


def test_unified_reward_writes_greedily_what_it_is_asked_and_an_answer_without_score_fails(
    tmp_path,
):
    folder = build_qwen2_5_vl(tmp_path / "model")
    question = tmp_path / "prompt.txt"
    question.write_text("Score the image of [{prompt}] after 'Final Score:'.")
    scorer = UnifiedReward(folder, folder, Placement("cpu"), question, max_new_tokens=5)
    images, prompts = pictures(2, (56, 56)), ["a cat", "a longer tale of a dog"]
    written = scorer.ask(images, prompts)
    # One token after another by the largest logit, each row alone and without a cache.
    inputs = QwenInputs(folder)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder)
    for image, prompt, answer in zip(images, prompts, written, strict=True):
        text = question.read_text().replace("{prompt}", prompt)
        arguments = on_device(inputs.build([image], [text], "left"), model)
        start = arguments["input_ids"].shape[1]
        with torch.inference_mode():
            for _ in range(5):
                logits = model(**arguments, use_cache=False).logits[0, -1]
                arguments["input_ids"] = append(arguments["input_ids"], int(logits.argmax()))
                arguments["attention_mask"] = append(arguments["attention_mask"], 1)
                arguments["mm_token_type_ids"] = append(arguments["mm_token_type_ids"], 0)
        ids = arguments["input_ids"][0, start:].tolist()
        if inputs.tokenizer.eos_token_id in ids:
            ids = ids[: ids.index(inputs.tokenizer.eos_token_id)]
        assert answer == inputs.tokenizer.decode(ids, skip_special_tokens=True)
    verdicts = scorer.score(images, prompts)
    assert [verdict.value for verdict in verdicts] == [None, None]
    assert repr(written[0]) in verdicts[0].reason


def append(tokens_1L: Tensor, token: int) -> Tensor:
    return torch.cat([tokens_1L, tokens_1L.new_tensor([[token]])], dim=1)


def test_scores_in_bfloat16_are_near_those_in_float32(clip):
    options = {"model": "clip_score", "weights": str(clip), "base": str(clip)}
    exact, coarse = scores(pictures(), **options), scores(pictures(), dtype="bfloat16", **options)
    assert exact != coarse
    assert_close(torch.tensor(coarse), torch.tensor(exact), atol=3.0, rtol=0)
