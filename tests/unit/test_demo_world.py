"""The bundled world of stickers: boards, prompts, corpus, detector and the stored teacher agree."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch

from services.demo.corpus import Corpus, build_corpus, lay_out
from services.demo.detector import Detection, detect
from services.demo.prompts import (
    FOLDER,
    TAGS,
    WORDS,
    contents,
    heldout_prompts,
    read_prompts,
    train_prompts,
)
from services.demo.stickers import COLORS, GROUND, SHAPES, Sticker, coverage, render
from services.prompts import check_clauses
from services.reward.geneval_rules import score_soft, score_strict

TEACHER = Path(__file__).parents[2] / "services" / "demo" / "models" / "teacher"


@pytest.fixture(scope="module")
def corpus() -> Corpus:
    return build_corpus(300, seed=5)


def precision_and_recall(corpus: Corpus, noise_sd: float) -> tuple[float, float]:
    """Over all stickers: shape, colour and cell must all be right, at score above 0.3."""
    rng = np.random.default_rng(0)
    right, found, there = 0, 0, 0
    for image, board in zip(corpus.images, corpus.drawn, strict=True):
        noisy = np.clip(image + rng.normal(0, noise_sd, image.shape), 0, 255).astype(np.uint8)
        seen = Counter(placed(one) for one in detect(noisy) if one.score > 0.3)
        truth = Counter(board)
        right += (seen & truth).total()
        found, there = found + seen.total(), there + truth.total()
    return right / found, right / there


def placed(seen: Detection) -> Sticker:
    x0, y0, x1, y1 = seen.box
    return Sticker(seen.class_name, seen.color, int((y0 + y1) / 16), int((x0 + x1) / 16))


@pytest.mark.unit
@pytest.mark.parametrize(("noise_sd", "least"), [(0, 0.98), (8, 0.98), (15, 0.95)])
def test_the_detector_finds_what_is_there_and_nothing_else(corpus, noise_sd, least):
    precision, recall = precision_and_recall(corpus, noise_sd)
    assert precision >= least
    assert recall >= least


@pytest.mark.unit
def test_a_half_strength_half_cut_or_absent_sticker_is_not_found():
    board = (Sticker("circle", "red", 1, 1),)
    whole = render(board, np.random.default_rng(0)).astype(float)
    faint = np.rint((whole + GROUND) / 2).astype(np.uint8)
    cut = whole.copy()
    cut[:, :12] = GROUND
    bare = np.broadcast_to(np.array(GROUND, dtype=np.uint8), (32, 32, 3)).copy()
    assert max(one.score for one in detect(faint)) < 0.3
    assert all(one.score < 0.3 for one in detect(cut.astype(np.uint8)))
    assert detect(bare) == []


@pytest.mark.unit
def test_scores_fall_as_a_sticker_fades():
    whole = render((Sticker("square", "blue", 2, 3),), np.random.default_rng(1)).astype(float)
    faded = [np.rint(GROUND + (whole - GROUND) * part).astype(np.uint8) for part in (1, 0.7, 0.55)]
    scores = [detect(image)[0].score for image in faded]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > 0.9


@pytest.mark.unit
def test_pure_noise_holds_no_sticker():
    rng = np.random.default_rng(2)
    for _ in range(5):
        assert detect(rng.integers(0, 256, (32, 32, 3), dtype=np.uint8)) == []


@pytest.mark.unit
def test_the_detector_refuses_what_is_no_rgb_byte_image():
    with pytest.raises(ValueError, match="uint8"):
        detect(np.zeros((32, 32, 3)))


@pytest.mark.unit
def test_every_prompt_is_strictly_true_of_its_own_board_as_the_detector_sees_it():
    rng = np.random.default_rng(3)
    for prompt in [*train_prompts()[::3], *heldout_prompts()]:
        seen = detect(render(lay_out(prompt, rng), rng))
        assert score_strict(prompt, seen) == (True, ""), prompt["prompt"]
        assert score_soft(prompt, seen) == 1.0


@pytest.mark.unit
def test_train_and_heldout_prompts_share_no_text_and_no_held_out_content():
    train, heldout = train_prompts(), heldout_prompts()
    texts = [prompt["prompt"] for prompt in [*train, *heldout]]
    assert len(set(texts)) == len(texts)
    for tag in ("counting", "position", "color_attr"):
        seen = [prompt["include"] for prompt in train if prompt["tag"] == tag]
        assert all(prompt["include"] not in seen for prompt in heldout if prompt["tag"] == tag)


@pytest.mark.unit
def test_all_tags_are_in_both_splits_and_all_held_out_words_in_training():
    train, heldout = train_prompts(), heldout_prompts()
    assert len(heldout) == 128
    assert {prompt["tag"] for prompt in train} == {prompt["tag"] for prompt in heldout} == set(TAGS)
    words = {word for prompt in train for word in prompt["prompt"].split()}
    assert words == set(WORDS)


@pytest.mark.unit
def test_the_committed_prompt_files_are_what_the_code_enumerates():
    assert read_prompts(FOLDER / "train.jsonl") == train_prompts()
    assert read_prompts(FOLDER / "heldout.jsonl") == heldout_prompts()


@pytest.mark.unit
def test_metadata_keeps_genevals_schema():
    for prompt in [*train_prompts(), *heldout_prompts()]:
        check_clauses(prompt)
        assert set(prompt) <= {"tag", "include", "exclude", "prompt"}
        assert {clause["class"] for clause in prompt["include"]} <= set(SHAPES)
        assert prompt["exclude"] == [
            {"class": clause["class"], "count": clause["count"] + 1} for clause in prompt["include"]
        ]


@pytest.mark.unit
def test_an_unknown_tag_is_refused_with_the_list_of_tags():
    with pytest.raises(ValueError, match="single_object"):
        contents("poems")


@pytest.mark.unit
def test_the_corpus_is_the_same_for_the_same_seed_and_another_for_another(corpus):
    again, other = build_corpus(300, seed=5), build_corpus(300, seed=6)
    assert np.array_equal(again.images, corpus.images)
    assert again.captions == corpus.captions
    assert not np.array_equal(other.images, corpus.images)


@pytest.mark.unit
def test_a_quarter_of_the_captions_is_swapped_and_the_others_are_true(corpus):
    by_text = {prompt["prompt"]: prompt for prompt in train_prompts()}
    true = np.array(
        [
            score_strict(by_text[caption], detect(image))[0]
            for image, caption in zip(corpus.images, corpus.captions, strict=True)
        ]
    )
    assert corpus.wrong.mean() == pytest.approx(0.25, abs=0.07)
    assert true[~corpus.wrong].all()
    assert true[corpus.wrong].mean() < 0.3


@pytest.mark.unit
def test_no_held_out_text_is_ever_a_caption(corpus):
    assert not {prompt["prompt"] for prompt in heldout_prompts()} & set(corpus.captions)


@pytest.mark.unit
def test_a_share_of_wrong_captions_outside_zero_to_one_is_refused():
    with pytest.raises(ValueError, match=r"wrong_caption=1\.5"):
        build_corpus(2, seed=0, wrong_caption=1.5)


@pytest.mark.unit
def test_shapes_cover_their_cell_and_differ_from_one_another():
    covers = [coverage(shape) for shape in SHAPES]
    assert all(20 < cover.sum() < 50 for cover in covers)
    for place, cover in enumerate(covers):
        for other in covers[:place]:
            assert np.abs(cover - other).sum() > 5


@pytest.mark.unit
def test_a_renderer_draws_its_colour_in_the_cell_asked_for():
    for color in COLORS:
        image = render((Sticker("square", color, 0, 3),), np.random.default_rng(0))
        assert [placed(one) for one in detect(image)] == [Sticker("square", color, 0, 3)]
        assert (image[8:] == GROUND).all()


@pytest.mark.integration
def test_every_prompt_word_is_one_token_of_the_tiny_tokenizer(tmp_path):
    from services.demo.tiny_sd3 import build_tokenizer
    from services.demo.worlds import WORLDS

    shape = WORLDS["stickers"].shape
    tokenizer = build_tokenizer(tmp_path, shape)
    for prompt in [*train_prompts(), *heldout_prompts()]:
        ids = tokenizer(prompt["prompt"]).input_ids
        assert len(ids) == len(prompt["prompt"].split()) + 2 <= shape.caption_tokens


@pytest.mark.integration
def test_the_latents_the_autoencoder_is_pinned_to_are_white_and_local():
    from services.demo.autoencoder import principal_components, to_unit

    images = torch.from_numpy(build_corpus(2000, seed=1).images).permute(0, 3, 1, 2)
    whiten = principal_components(images, channels=12)
    latents = whiten(to_unit(images)).permute(0, 2, 3, 1).reshape(-1, 12)
    assert latents.mean(dim=0).abs().max() < 1e-3
    assert (torch.cov(latents.T) - torch.eye(12)).abs().max() < 0.02
    painted = images[:1].clone()
    painted[:, :, 8:16, 8:16] = 0
    changed = (whiten(to_unit(painted)) - whiten(to_unit(images[:1]))).abs().sum(dim=1)[0]
    assert changed.nonzero().tolist() == [[1, 1]]


@pytest.mark.integration
@pytest.mark.parametrize("world", ["stickers", "words"])
def test_a_few_steps_of_pretraining_leave_a_folder_the_stock_pipeline_runs(world, tmp_path):
    from diffusers import StableDiffusion3Pipeline

    from services.demo.autoencoder import AutoencoderConfig
    from services.demo.pretrain import PretrainConfig, pretrain
    from services.demo.worlds import WORLDS

    quick = AutoencoderConfig(steps=2, num_images=64)
    pretrain(tmp_path, PretrainConfig(world, num_examples=64, autoencoder=quick, steps=2, batch=4))
    pipeline = StableDiffusion3Pipeline.from_pretrained(
        tmp_path, text_encoder_3=None, tokenizer_3=None, dtype=torch.float32
    )
    shape = WORLDS[world].shape
    made = pipeline(
        WORLDS[world].heldout()[0]["prompt"],
        num_inference_steps=2,
        height=shape.height,
        width=shape.width,
        max_sequence_length=0,
        output_type="np",
    )
    assert made.images.shape == (1, shape.height, shape.width, 3)


@pytest.mark.integration
def test_the_stored_teacher_draws_what_it_is_asked_more_often_than_not_for_one_sticker():
    from diffusers import StableDiffusion3Pipeline

    pipeline = StableDiffusion3Pipeline.from_pretrained(
        TEACHER, text_encoder_3=None, tokenizer_3=None, dtype=torch.float32
    )
    prompts = [prompt for prompt in heldout_prompts() if prompt["tag"] == "single_object"]
    made = pipeline(
        [prompt["prompt"] for prompt in prompts],
        num_inference_steps=10,
        guidance_scale=3.0,
        max_sequence_length=0,
        generator=torch.Generator().manual_seed(0),
        output_type="np",
    ).images
    images = np.rint(made * 255).astype(np.uint8)
    pairs = zip(prompts, images, strict=True)
    strict = [score_strict(prompt, detect(image))[0] for prompt, image in pairs]
    assert np.mean(strict) >= 0.5


@pytest.mark.unit
def test_the_stored_teacher_is_small_enough_to_ship():
    sizes = [path.stat().st_size for path in TEACHER.rglob("*") if path.is_file()]
    assert 0 < sum(sizes) <= 10_000_000
