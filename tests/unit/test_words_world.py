"""The bundled world of words: signs, prompts, corpus and the stored models agree."""

from pathlib import Path

import numpy as np
import pytest
import torch

from services.demo.prompts import read_prompts
from services.demo.words.corpus import build_corpus, crowded_images, sign_of
from services.demo.words.prompts import (
    CAPTION_WORDS,
    DICTIONARY,
    FOLDER,
    TAGS,
    heldout_prompts,
    strings,
    train_prompts,
)
from services.demo.words.signs import (
    ALPHABET,
    CELL,
    DIGITS,
    FONTS,
    GROUND,
    HEIGHT,
    INKS,
    LETTERS,
    Sign,
    coverage,
    render,
)
from services.reward.contract import RewardInput
from services.reward.ocr import OcrReward, target_of
from tdm_core.types import Prompt

MODELS = Path(__file__).parents[2] / "services" / "demo" / "words" / "models"


def readings(images, captions: list[str], **options: object) -> list[float]:
    """The real engine's reward of each image for its caption."""
    reward = OcrReward(**options)
    pairs = zip(images, captions, strict=True)
    batch = [
        RewardInput(np.ascontiguousarray(image), Prompt(str(n), caption), n, 0, 0)
        for n, (image, caption) in enumerate(pairs)
    ]
    return [verdict.value for verdict in reward.evaluate(batch)]


@pytest.mark.integration
@pytest.mark.parametrize("find_lines", [False, True])
def test_the_ocr_engine_reads_true_signs_of_every_font_ink_and_character(find_lines):
    rng = np.random.default_rng(0)
    texts = ["".join(rng.permutation(list(ALPHABET))[:4]) for _ in range(40)]
    looks = [(ink, font) for ink in INKS for font in FONTS]
    signs = [Sign(text, *looks[number % len(looks)]) for number, text in enumerate(texts)]
    assert set("".join(texts)) == set(ALPHABET)
    images = [render(sign, rng) for sign in signs]
    values = readings(images, [f'"{text}"' for text in texts], find_lines=find_lines)
    assert np.mean(np.array(values) == 1.0) >= 0.95


@pytest.mark.integration
def test_the_ocr_engine_reads_nothing_right_on_blank_noisy_and_wrong_signs():
    rng = np.random.default_rng(1)
    blank = np.broadcast_to(np.array(GROUND, dtype=np.uint8), (32, 64, 3))
    noise = rng.integers(0, 256, (32, 64, 3), dtype=np.uint8)
    wrong = render(Sign("TEA", "red", "Aileron"), rng)
    values = readings([blank, noise, wrong], ['"K7PX"'] * 3, find_lines=False)
    assert max(values) <= 0.25


@pytest.mark.unit
def test_train_and_held_out_strings_are_disjoint_and_every_prompt_names_its_own():
    train, heldout = train_prompts(), heldout_prompts()
    assert not {one["text"] for one in train} & {one["text"] for one in heldout}
    for one in [*train, *heldout]:
        assert target_of(Prompt("p", one["prompt"])) == one["text"].lower()
        assert one.get("ink", "in") in one["prompt"]
    texts = [one["prompt"] for one in [*train, *heldout]]
    assert len(set(texts)) == len(texts)


@pytest.mark.unit
def test_each_tag_has_held_out_strings_and_each_character_occurs_in_training():
    train, heldout = train_prompts(), heldout_prompts()
    assert len(heldout) == len({one["text"] for one in heldout}) == 128
    assert {one["tag"] for one in train} == {one["tag"] for one in heldout} == set(TAGS)
    assert set("".join(one["text"] for one in train)) == set(ALPHABET)


@pytest.mark.unit
def test_words_are_letters_numbers_digits_and_codes_both():
    assert set("".join(DICTIONARY.split())) <= set(LETTERS)
    assert set("".join(strings("number"))) == set(DIGITS)
    assert all(set(code) & set(LETTERS) and set(code) & set(DIGITS) for code in strings("code"))
    assert {len(text) for tag in TAGS for text in strings(tag)} == {2, 3, 4}
    with pytest.raises(ValueError, match="word, number, code"):
        strings("poem")


@pytest.mark.unit
def test_the_committed_prompt_files_are_what_the_code_enumerates():
    assert read_prompts(FOLDER / "train.jsonl") == train_prompts()
    assert read_prompts(FOLDER / "heldout.jsonl") == heldout_prompts()


@pytest.mark.unit
def test_a_character_stays_in_its_cell_and_the_rest_is_ground():
    rng = np.random.default_rng(0)
    for font in FONTS:
        image = render(Sign("H7", "black", font), rng)
        assert image.shape == (HEIGHT, 4 * CELL, 3)
        assert (image[:, 2 * CELL :] == GROUND).all()
        for cell in (image[:, :CELL], image[:, CELL : 2 * CELL]):
            assert (cell != GROUND).any(axis=2).sum() > 40


@pytest.mark.unit
def test_characters_differ_from_one_another_in_every_font():
    for font in FONTS:
        covers = [coverage(font, character) for character in ALPHABET]
        for place, cover in enumerate(covers):
            assert 0 <= cover.min() < cover.max() <= 1
            assert all(np.abs(cover - other).sum() > 5 for other in covers[:place])


@pytest.mark.unit
def test_a_sign_has_the_text_and_ink_asked_for_and_else_any():
    rng = np.random.default_rng(0)
    assert sign_of({"text": "TEA", "ink": "blue"}, rng).ink == "blue"
    signs = [sign_of({"text": "TEA"}, rng) for _ in range(200)]
    assert {sign.text for sign in signs} == {"TEA"}
    assert {sign.ink for sign in signs} == set(INKS)
    assert {sign.font for sign in signs} == set(FONTS)


@pytest.mark.unit
def test_the_corpus_repeats_by_seed_and_a_quarter_of_its_captions_is_wrong():
    corpus, again, other = (build_corpus(300, seed) for seed in (5, 5, 6))
    assert np.array_equal(again.images, corpus.images)
    assert again.captions == corpus.captions
    assert not np.array_equal(other.images, corpus.images)
    says = [
        f'"{sign.text}"' in text for sign, text in zip(corpus.drawn, corpus.captions, strict=True)
    ]
    true = np.array(says)
    assert corpus.wrong.mean() == pytest.approx(0.25, abs=0.07)
    assert true[~corpus.wrong].all()
    assert true[corpus.wrong].mean() < 0.1


@pytest.mark.unit
def test_no_held_out_string_is_ever_on_an_image_or_in_a_caption():
    corpus = build_corpus(1000, seed=7)
    held_out = {one["text"] for one in heldout_prompts()}
    assert not held_out & {sign.text for sign in corpus.drawn}
    assert not held_out & {caption.split('"')[1] for caption in corpus.captions}


@pytest.mark.unit
def test_crowded_images_repeat_by_seed():
    crowd = crowded_images(3, seed=1)
    assert crowd.shape == (3, 32, 64, 3)
    assert np.array_equal(crowd, crowded_images(3, seed=1))


@pytest.mark.integration
def test_every_word_and_every_character_of_a_string_is_one_token(tmp_path):
    from services.demo.tiny_sd3 import build_tokenizer
    from services.demo.worlds import WORLDS

    shape = WORLDS["words"].shape
    tokenizer = build_tokenizer(tmp_path, shape)
    for one in [*train_prompts(), *heldout_prompts()]:
        tokens = tokenizer.tokenize(one["prompt"])
        spelled = [token.removesuffix("</w>") for token in tokens]
        words = [word for word in spelled if word in CAPTION_WORDS and len(word) > 1]
        assert len(tokens) == len(one["prompt"].split()) - 1 + len(one["text"]) + 2
        assert len(words) == len(one["prompt"].split()) - 2
        assert "".join(spelled).split('"')[1] == one["text"].lower()
        assert len(tokens) + 2 <= shape.caption_tokens


@pytest.mark.integration
def test_the_stored_teacher_writes_held_out_strings_that_the_engine_reads():
    from diffusers import StableDiffusion3Pipeline

    pipeline = StableDiffusion3Pipeline.from_pretrained(
        MODELS / "teacher", text_encoder_3=None, tokenizer_3=None, dtype=torch.float32
    )
    captions = [one["prompt"] for one in heldout_prompts()[::4]]
    made = pipeline(
        captions,
        num_inference_steps=10,
        guidance_scale=3.0,
        height=32,
        width=64,
        max_sequence_length=0,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images
    values = readings(np.rint(made * 255).astype(np.uint8), captions, find_lines=False)
    assert np.mean(values) >= 0.4


@pytest.mark.unit
@pytest.mark.parametrize("name", ["teacher", "student"])
def test_the_stored_models_are_small_enough_to_ship(name):
    sizes = [path.stat().st_size for path in (MODELS / name).rglob("*") if path.is_file()]
    assert 0 < sum(sizes) <= 8_000_000
