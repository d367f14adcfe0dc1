"""What preference models do around their networks, by hand; no network runs here."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch.testing import assert_close

from services.config import RewardConfig
from services.reward.clip import from_open_clip
from services.reward.clip_preference import on_black_square
from services.reward.hpsv3 import build_head as build_hpsv3_head
from services.reward.hpsv3 import split
from services.reward.load import load_reward
from services.reward.preference import FAMILIES, PreferenceReward
from services.reward.qwen_vl import read_question
from services.reward.score_head import build_head
from services.reward.unified_reward import verdict_of

pytestmark = pytest.mark.unit


def test_a_wide_image_stands_whole_on_a_black_square():
    image = np.full((2, 6, 3), 255, dtype=np.uint8)
    square = on_black_square(image, 6)
    assert square.shape == (3, 6, 6)
    assert_close(square[:, 2:4], torch.ones(3, 2, 6))
    assert square[:, :2].abs().max() == 0
    assert square[:, 4:].abs().max() == 0
    # Half the size: 1 row of 3; an odd rest goes below, 1 above and 1 under it.
    smaller = on_black_square(image, 3)
    assert_close(smaller[0], torch.tensor([[0.0] * 3, [1.0] * 3, [0.0] * 3]))


def test_a_tall_image_has_the_odd_column_of_black_on_its_right():
    square = on_black_square(np.full((4, 1, 3), 51, dtype=np.uint8), 4)
    assert_close(square[0], torch.tensor([[0.0, 0.2, 0.0, 0.0]]).expand(4, 4))


def test_an_image_of_the_right_size_is_only_scaled_to_one():
    image = np.arange(48, dtype=np.uint8).reshape(4, 4, 3)
    expected = torch.from_numpy(image).permute(2, 0, 1) / 255
    assert_close(on_black_square(image, 4), expected)


def test_a_head_is_a_linear_layer_or_a_row_of_them_in_the_order_of_their_numbers(tmp_path):
    x = torch.tensor([[1.0, 2.0]])
    one = {"weight": torch.tensor([[3.0, 4.0]]), "bias": torch.tensor([0.5])}
    assert build_head(one, 2, tmp_path)(x).item() == 11.5
    row = {
        "layers.10.weight": torch.tensor([[2.0, -1.0, 1.0]]),
        "layers.10.bias": torch.tensor([1.0]),
        "layers.2.weight": torch.tensor([[1.0, 0.0], [0.0, 1.0], [1.0, 1.0]]),
        "layers.2.bias": torch.tensor([0.0, -5.0, 0.0]),
    }
    # (1, 2) -> (1, -3, 3), not cut at 0 -> 2 + 3 + 3 + 1
    assert build_head(row, 2, tmp_path)(x).item() == 9.0


def test_what_is_no_head_for_this_embedding_is_refused(tmp_path):
    one = {"weight": torch.ones(1, 2), "bias": torch.ones(1)}
    with pytest.raises(ValueError, match="takes 2 numbers and gives 1; the embedding has 768"):
        build_head(one, 768, tmp_path)
    with pytest.raises(ValueError, match="is no head: its tensors are blip"):
        build_head({"blip.x": torch.ones(1)}, 2, tmp_path)
    with pytest.raises(ValueError, match=r"0\.bias is missing"):
        build_head({"weight": torch.ones(1, 2)}, 2, tmp_path)


def test_hpsv3s_head_cuts_at_zero_between_its_layers(tmp_path):
    tensors = {
        "0.weight": torch.tensor([[1.0], [-1.0]]),
        "0.bias": torch.zeros(2),
        "3.weight": torch.tensor([[1.0, 10.0], [-1.0, 0.0]]),
        "3.bias": torch.tensor([0.0, 1.0]),
        "5.weight": torch.tensor([[2.0, 5.0], [0.0, 1.0]]),
        "5.bias": torch.tensor([0.25, 0.0]),
    }
    head = build_hpsv3_head(tensors, 1, tmp_path).eval()
    # 3 -> (3, 0) -> (3, 0) -> (6.25, 0); -3 -> (0, 3) -> (30, 1) -> (65.25, 1)
    assert head(torch.tensor([[3.0], [-3.0]])).tolist() == [[6.25, 0.0], [65.25, 1.0]]


def test_both_namings_of_hpsv3_are_the_same_network():
    old = ["visual.x", "model.embed_tokens.weight", "model.norm.weight", "lm_head.weight"]
    new = ["model.visual.x", "model.language_model.embed_tokens.weight"]
    new += ["model.language_model.norm.weight", "lm_head.weight"]
    for names in (old, new):
        network, head = split({name: torch.ones(1) for name in [*names, "rm_head.0.bias"]})
        assert set(network) == {
            "visual.x",
            "language_model.embed_tokens.weight",
            "language_model.norm.weight",
        }
        assert set(head) == {"0.bias"}
    with pytest.raises(ValueError, match="this is not HPSv3"):
        split({"text_model.x": torch.ones(1)})


def test_open_clips_joined_projections_are_parted_and_its_matrices_turned():
    joined = torch.arange(6.0).reshape(6, 1).expand(6, 2)
    converted = from_open_clip(
        {
            "module.visual.transformer.resblocks.3.attn.in_proj_weight": joined,
            "transformer.resblocks.0.ln_2.bias": torch.ones(1),
            "visual.proj": torch.tensor([[1.0, 2.0]]),
            "attn_mask": torch.ones(1),
        }
    )
    layer = "vision_model.encoder.layers.3.self_attn"
    assert converted[f"{layer}.k_proj.weight"].tolist() == [[2.0, 2.0], [3.0, 3.0]]
    assert converted["visual_projection.weight"].tolist() == [[1.0], [2.0]]
    assert set(converted) == {
        *(f"{layer}.{part}_proj.weight" for part in "qkv"),
        "text_model.encoder.layers.0.layer_norm2.bias",
        "visual_projection.weight",
    }


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("Final Score: 4", 4.0),
        ("dog (animal): 1\nFinal Score: 3.62", 3.62),
        ("Final Score: **2**", 2.0),
        ("a Final Score: of 1 to 5. Final Score: 5", 5.0),
        ("Final Score: 7", None),
        ("Final Score: 5.5", None),
        ("Final Score: 45", None),
        ("a fine dog, 4 of 5", None),
        ("", None),
    ],
)
def test_the_final_score_of_an_answer_is_its_value_or_there_is_none(text, value):
    verdict = verdict_of(text)
    assert verdict.value == value
    assert (text in verdict.reason) or (repr(text) in verdict.reason)


def test_a_question_lacks_nothing_that_the_model_needs(tmp_path):
    file = tmp_path / "prompt.txt"
    file.write_text("Is {prompt} there? <|Reward|>")
    assert read_question(file, ("{prompt}", "<|Reward|>")).startswith("Is {prompt}")
    file.write_text("Is {prompt} there, {prompt}?")
    with pytest.raises(ValueError, match=r"holds '\{prompt\}' 2 times; .*exactly once"):
        read_question(file, ("{prompt}",))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"model": "blip"}, "allowed are pickscore, hpsv2, clip_score, aesthetic, image_reward"),
        ({"model": "hpsv2"}, "option weights is missing: model 'hpsv2' is not published as"),
        ({"model": "clip_score", "weights": "x/nothing"}, "hf download x/nothing"),
        (
            {"model": "image_reward", "weights": "ImageReward.pt"},
            "a pickle, which can run anything",
        ),
        ({"model": "pickscore", "prompt_file": "x"}, "model 'pickscore' is not asked"),
        ({"model": "hpsv3"}, "option prompt_file=None is no file: model 'hpsv3' needs the text"),
        ({"model": "pickscore", "weight": "x"}, "unknown option 'weight'; did you mean 'weights'"),
        ({}, "option 'model' is missing"),
    ],
)
def test_a_wrong_section_says_what_helps_before_the_run(options, message):
    with pytest.raises(ValueError, match=message):
        load_reward(RewardConfig(name="p", kind="preference", options=options))


def test_the_family_says_what_it_reads_and_the_files_make_the_version(tmp_path):
    folder = tmp_path / "base"
    folder.mkdir()
    for name in ("config.json", "preprocessor_config.json", "tokenizer_config.json"):
        (folder / name).write_text("{}")
    versions = set()
    for bias in (0.0, 1.0):
        head = tmp_path / "head.safetensors"
        save_file({"weight": torch.ones(1, 2), "bias": torch.tensor([bias])}, head)
        reward = PreferenceReward("aesthetic", weights=str(head), base=str(folder))
        assert reward.requires == ("image",)
        versions.add(reward.version)
    assert len(versions) == 2
    assert FAMILIES["pickscore"].requires == ("prompt", "image")
