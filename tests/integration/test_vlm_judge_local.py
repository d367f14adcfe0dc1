"""The judge in this process, on a tiny checkpoint of the real classes: formulas, padding, cache."""

import json
import shutil
from importlib.util import find_spec

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import Qwen2_5_VLForConditionalGeneration

from services.config import RewardConfig
from services.reward.contract import RewardInput
from services.reward.load import load_reward
from services.reward.qwen_vl import QwenInputs
from services.reward.worker import RewardWorker
from tdm_core.types import ImageGroup, Prompt
from tests.tiny_vision import build_qwen2_5_vl
from tests.tiny_vlm import ANSWERS, write_vlm

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory):
    return write_vlm(tmp_path_factory.mktemp("vlm"))


def build(checkpoint, **options):
    options = {"weights": str(checkpoint), "device": "cpu", **options}
    return load_reward(RewardConfig(name="judge", kind="vlm_judge_local", options=options))


def item(seed: int = 0, text: str = "a dog") -> RewardInput:
    image = np.random.default_rng(seed).integers(0, 256, (24, 20, 3), dtype=np.uint8)
    return RewardInput(image, Prompt("p:1", text), 0, seed, 0)


def first_token(checkpoint, image, text) -> torch.Tensor:
    """The reference: one unpadded forward pass of the module itself."""
    from transformers import AutoModelForImageTextToText, AutoProcessor

    processor = AutoProcessor.from_pretrained(checkpoint)
    model = AutoModelForImageTextToText.from_pretrained(checkpoint).eval()
    inputs = processor(images=[image], text=["<image>" + text], return_tensors="pt")
    with torch.inference_mode():
        return model(**inputs).logits[0, -1].softmax(-1)


def token_of(word: str) -> int:
    return 5 + ANSWERS.index(word)


def test_yes_no_is_the_first_tokens_probability_over_all_spellings(checkpoint):
    reward = build(checkpoint, question="Is it {prompt} ?")
    (verdict,) = reward.evaluate([item()])
    text = "Is it a dog ? Answer with yes or no only."
    p = first_token(checkpoint, item().image, text)
    yes, no = (p[token_of(a)] + p[token_of(b)] for a, b in (("Yes", "yes"), ("No", "no")))
    assert verdict.value == pytest.approx((yes / (yes + no)).item(), abs=1e-6)
    assert verdict.parts == pytest.approx({"p_yes": yes.item(), "p_no": no.item()}, abs=1e-6)


def test_a_score_is_the_mean_digit_in_its_range(checkpoint):
    reward = build(checkpoint, mode="score", question="Is it good ?", scale={"lowest": 1})
    (verdict,) = reward.evaluate([item()])
    text = "Is it good ? Answer with a whole number from 1 to 9 only."
    p = first_token(checkpoint, item().image, text)
    mass = p[[token_of(digit) for digit in "123456789"]]
    mean = (mass * torch.arange(1, 10)).sum() / mass.sum()
    assert verdict.value == pytest.approx(((mean - 1) / 8).item(), abs=1e-6)
    expected = {"score": mean.item(), "p_digits": mass.sum().item()}
    assert verdict.parts == pytest.approx(expected, abs=1e-5)


def test_a_rubric_is_the_weighted_mean_of_its_criteria(checkpoint):
    dog = {"name": "dog", "question": "Is it a dog ?", "weight": 3}
    good = {"name": "good", "question": "Is it good ?", "mode": "score"}
    (verdict,) = build(checkpoint, mode="rubric", rubric=[dog, good]).evaluate([item()])
    (one,) = build(checkpoint, question=dog["question"]).evaluate([item()])
    (two,) = build(checkpoint, mode="score", question=good["question"]).evaluate([item()])
    assert verdict.parts == pytest.approx({"dog": one.value, "good": two.value}, abs=1e-6)
    assert verdict.value == pytest.approx((3 * one.value + two.value) / 4, abs=1e-6)


def test_an_answer_does_not_depend_on_what_shares_its_pass(checkpoint):
    batch = [item(0), item(1, "a cat . Is it a good cat ?"), item(2, "cat")]
    together = build(checkpoint).evaluate(batch)
    apart = [build(checkpoint, images_per_pass=1).evaluate([one])[0] for one in batch]
    assert [v.value for v in together] == pytest.approx([v.value for v in apart], abs=1e-6)
    assert len({round(v.value, 7) for v in together}) == 3


def test_an_answer_is_remembered_for_its_image_and_prompt(checkpoint):
    reward = build(checkpoint)
    first = reward.evaluate([item(0), item(0), item(1)])
    assert first[0] is first[1]
    again = reward.evaluate([item(1), item(0)])
    assert (again[0] is first[2], again[1] is first[0]) == (True, True)
    (other,) = reward.evaluate([item(0, "a cat")])
    assert other.value != first[0].value
    forgetful = build(checkpoint, cache_size=0)
    assert forgetful.evaluate([item(0)])[0] is not forgetful.evaluate([item(0)])[0]


def test_an_answer_that_hardly_has_a_digit_or_a_word_has_no_value(tmp_path):
    rare = write_vlm(tmp_path, (*ANSWERS, *(f"word{n}" for n in range(2000))))
    for mode in ("yes_no", "score"):
        (verdict,) = build(rare, mode=mode).evaluate([item()])
        assert verdict.value is None
        assert "of the first token's probability" in verdict.reason


def test_a_model_without_the_tokens_to_answer_with_is_refused_at_the_start(tmp_path):
    silent = write_vlm(tmp_path, ("Yes", "yes", "1", "2"))
    with pytest.raises(ValueError, match="no token of its own for no, by which mode yes_no"):
        RewardWorker(config_of(silent))
    with pytest.raises(ValueError, match="no token of its own for 0, 3, 4"):
        RewardWorker(config_of(silent, mode="score"))


def config_of(checkpoint, **options) -> RewardConfig:
    options = {"weights": str(checkpoint), "device": "cpu", **options}
    return RewardConfig(name="judge", kind="vlm_judge_local", options=options)


def test_it_judges_groups_in_a_worker(checkpoint):
    images = torch.arange(3, dtype=torch.uint8)[:, None, None, None, None] * 80
    images = images.expand(-1, 1, 3, 16, 16).contiguous()
    records = RewardWorker(config_of(checkpoint)).evaluate(
        [ImageGroup(0, Prompt("p:1", "a dog"), 0, images)]
    )
    assert [record.state for record in records] == ["ready"] * 3
    assert all(0 < record.value < 1 for record in records)


def test_a_checkpoint_that_is_none_is_refused_with_what_is_wrong(checkpoint, tmp_path):
    with pytest.raises(ValueError, match=r"lacks config.json, tokenizer_config.json"):
        build(tmp_path)
    with pytest.raises(ValueError, match="is a pickle"):
        build("judge.bin")
    with pytest.raises(ValueError, match="hf download some/judge"):
        build("some/judge")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    (tmp_path / "tokenizer_config.json").write_text("{}")
    with pytest.raises(ValueError, match="no vision language model that transformers can load"):
        build(tmp_path).prepare()


def test_a_checkpoint_that_lacks_parameters_is_refused_with_their_names(checkpoint, tmp_path):
    broken = shutil.copytree(checkpoint, tmp_path / "broken")
    tensors = load_file(broken / "model.safetensors")
    head = next(name for name in tensors if "lm_head" in name)
    save_file({k: v for k, v in tensors.items() if k != head}, broken / "model.safetensors")
    with pytest.raises(ValueError, match=r"does not set lm_head.weight; fetch the whole"):
        RewardWorker(config_of(broken))


def test_a_head_that_is_tied_to_the_embedding_lacks_nothing(tmp_path):
    tied = build_qwen2_5_vl(tmp_path, tied=True)
    assert not any("lm_head" in name for name in load_file(tied / "model.safetensors"))
    build(tied, mode="score").prepare()


def test_a_qwen_is_asked_without_its_own_processor_which_wants_torchvision(tmp_path):
    folder = build_qwen2_5_vl(tmp_path)
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder).eval()
    batch = [item(0), item(1, "a longer tale of a cat")]
    together = build(folder, mode="score", question="Is it {prompt} ?").evaluate(batch)
    for one, verdict in zip(batch, together, strict=True):
        text = f"Is it {one.prompt.text} ? Answer with a whole number from 0 to 9 only."
        inputs = QwenInputs(folder)
        with torch.inference_mode():
            logits = model(**inputs.build([one.image], [text], "left")).logits[0, -1]
        digits = logits.softmax(-1)[inputs.tokenizer.convert_tokens_to_ids(list("0123456789"))]
        mean = ((digits * torch.arange(10)).sum() / digits.sum()).item()
        assert verdict.parts["p_digits"] == pytest.approx(digits.sum().item(), abs=1e-5)
        assert verdict.value == pytest.approx(mean / 9, abs=1e-5)


@pytest.mark.skipif(find_spec("torchvision") is not None, reason="nothing is missing")
def test_a_family_that_needs_torchvision_says_so_and_what_goes_without(checkpoint, tmp_path):
    other = shutil.copytree(checkpoint, tmp_path / "other")
    for file in ("processor_config.json", "tokenizer_config.json"):
        tree = json.loads((other / file).read_text())
        (other / file).write_text(json.dumps(tree | {"processor_class": "Qwen3VLProcessor"}))
    video = {"video_processor_type": "Qwen3VLVideoProcessor"}
    (other / "video_preprocessor_config.json").write_text(json.dumps(video))
    told = r"requires the Torchvision library .* Install it .* goes without: LLaVA, qwen2_vl"
    with pytest.raises(ValueError, match=told):
        RewardWorker(config_of(other))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"mode": "score", "scale": {"highest": 10}}, "from 0 to 10; a local judge answers with"),
        ({"mode": "score", "scale": {"lowest": -1}}, "one digit"),
        ({"mode": "score", "scale": {"whole": False}}, "one digit"),
        ({"mode": "score", "scale": 3}, "option scale is 3"),
        ({"scale": {"lowest": 1}}, "scale has no meaning with mode yes_no"),
        ({"images_per_pass": 0}, "images_per_pass=0"),
        ({"device": "tpu"}, "device='tpu': allowed are auto, cpu, cuda"),
        ({"dtype": "int8"}, "dtype='int8'"),
    ],
)
def test_wrong_options_are_refused(checkpoint, options, message):
    with pytest.raises(ValueError, match=message):
        build(checkpoint, **options)


def test_the_version_changes_with_the_checkpoint_and_with_what_is_asked(checkpoint, tmp_path):
    first = build(checkpoint).version
    assert build(checkpoint, images_per_pass=1, cache_size=0).version == first
    assert build(checkpoint, mode="score").version != first
    assert build(checkpoint, dtype="bfloat16").version != first
    assert build(write_vlm(tmp_path / checkpoint.name, seed=1)).version != first
