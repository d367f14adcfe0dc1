"""The SD3 backbone against diffusers' own pipeline, on a tiny random checkpoint."""

from pathlib import Path

import pytest
import torch
from diffusers import AutoencoderTiny, StableDiffusion3Pipeline

from services.config import ModelConfig
from services.models.load import load_backbone
from services.models.roles import ROLES
from tests.tiny_sd3 import PROMPTS, build_checkpoint

pytestmark = pytest.mark.integration

NO_T5 = {"text_encoder_3": None, "tokenizer_3": None}


@pytest.fixture(scope="module", params=["clips", "clips_and_t5"])
def checkpoint(request, tmp_path_factory) -> Path:
    with_t5 = request.param == "clips_and_t5"
    return build_checkpoint(tmp_path_factory.mktemp("sd3"), with_t5)


@pytest.fixture(scope="module")
def pipeline(checkpoint) -> StableDiffusion3Pipeline:
    absent = {} if (checkpoint / "text_encoder_3").is_dir() else NO_T5
    return StableDiffusion3Pipeline.from_pretrained(checkpoint, **absent)


def model(checkpoint: Path, **fields) -> ModelConfig:
    defaults = {"family": "sd3", "roles": "full", "max_sequence_length": 6, "device": "cpu"}
    return ModelConfig(teacher=str(checkpoint), **defaults | fields)


def inputs(backbone, rows: int = 3) -> tuple[torch.Tensor, torch.Tensor, dict[str, torch.Tensor]]:
    rng = torch.Generator().manual_seed(0)
    latents = torch.randn(rows, *backbone.latent_shape, generator=rng)
    return latents, torch.linspace(1.0, 0.2, rows), backbone.encode_prompts(PROMPTS[:rows])


@pytest.mark.parametrize("length", [0, 6])
def test_prompts_are_encoded_as_the_pipeline_encodes_them(checkpoint, pipeline, length):
    backbone = load_backbone(model(checkpoint, max_sequence_length=length), ["generator"])
    texts = [*PROMPTS, "a prompt that is far too long for twelve tokens", ""]
    with torch.no_grad():
        embeds, _, pooled, _ = pipeline.encode_prompt(
            texts, None, None, do_classifier_free_guidance=False, max_sequence_length=length or 6
        )
    embeds = embeds[:, : 12 + length]  # the pipeline cannot leave its T5 out, but it comes last
    ours = backbone.encode_prompts(texts)
    assert ours["prompt_embeds"].shape == (5, 12 + length, 48)
    torch.testing.assert_close(ours["prompt_embeds"], embeds)
    torch.testing.assert_close(ours["pooled_prompt_embeds"], pooled)
    torch.testing.assert_close(backbone.unconditional["prompt_embeds"], embeds[-1:])


def test_a_texts_row_does_not_depend_on_its_neighbours(checkpoint):
    together = load_backbone(model(checkpoint), ["generator"]).encode_prompts(PROMPTS)
    alone = load_backbone(model(checkpoint), ["generator"]).encode_prompts([PROMPTS[2]])
    assert torch.equal(together["prompt_embeds"][2:], alone["prompt_embeds"])


def test_encoders_load_at_the_first_new_text_and_leave_after_the_empty_prompt(checkpoint):
    backbone = load_backbone(model(checkpoint), ["generator"])
    encoder = backbone._encoder
    assert not encoder.is_loaded
    assert backbone.unconditional["pooled_prompt_embeds"].shape == (1, 40)
    assert not encoder.is_loaded
    backbone.encode_prompts([""])
    assert not encoder.is_loaded
    backbone.encode_prompts(PROMPTS)
    assert encoder.is_loaded


def test_velocity_is_the_transformers_at_a_thousand_times_sigma(checkpoint, pipeline):
    backbone = load_backbone(model(checkpoint), ["teacher"])
    latents, sigma, conditioning = inputs(backbone)
    with torch.no_grad():
        ours = backbone.denoiser("teacher")(latents, sigma, conditioning)
        theirs = pipeline.transformer(
            latents,
            encoder_hidden_states=conditioning["prompt_embeds"],
            pooled_projections=conditioning["pooled_prompt_embeds"],
            timestep=1000 * sigma,
        ).sample
    assert ours.std() > 0.1
    torch.testing.assert_close(ours, theirs)


def test_images_are_decoded_as_the_pipeline_decodes_them(checkpoint, pipeline):
    backbone = load_backbone(model(checkpoint), ["generator"])
    latents = inputs(backbone)[0]
    config = pipeline.vae.config
    with torch.no_grad():
        decoded = pipeline.vae.decode(latents / config.scaling_factor + config.shift_factor).sample
    theirs = pipeline.image_processor.postprocess(decoded, output_type="np")
    images = backbone.decode(latents)
    assert images.dtype == torch.uint8
    assert images.shape == (3, 3, 16, 16)
    expected = torch.from_numpy((theirs * 255).round().astype("uint8")).permute(0, 3, 1, 2)
    assert torch.equal(images, expected)
    assert torch.equal(images, backbone.decode(latents))


def test_a_tiny_autoencoder_may_stand_in_for_the_vae(checkpoint, tmp_path):
    folder = build_checkpoint(tmp_path)
    tiny = AutoencoderTiny(
        latent_channels=4,
        encoder_block_out_channels=(8, 8),
        decoder_block_out_channels=(8, 8),
        num_encoder_blocks=(1, 1),
        num_decoder_blocks=(1, 1),
    )
    for file in (folder / "vae").iterdir():
        file.unlink()
    tiny.save_pretrained(folder / "vae")
    backbone = load_backbone(model(folder), ["generator"])
    assert backbone.latent_shape == (4, 8, 8)
    assert backbone.decode(torch.zeros(2, 4, 8, 8)).shape == (2, 3, 16, 16)


def test_full_copies_start_equal_and_train_alone(checkpoint):
    backbone = load_backbone(model(checkpoint), ROLES)
    latents, sigma, conditioning = inputs(backbone)
    with torch.no_grad():
        start = backbone.denoiser("teacher")(latents, sigma, conditioning)
        for role in ROLES:
            assert torch.equal(backbone.denoiser(role)(latents, sigma, conditioning), start)
    backbone.denoiser("fake_score")(latents, sigma, conditioning).square().sum().backward()
    for role in ROLES:
        gradients = [p.grad is not None for p in backbone.module(role).parameters()]
        assert any(gradients) == (role == "fake_score")


def test_the_generator_starts_from_its_own_folder(checkpoint, tmp_path):
    other = build_checkpoint(tmp_path, seed=1)
    expected = load_backbone(model(other), ["generator"]).tensors("generator")
    for generator in (other, other / "transformer"):
        backbone = load_backbone(model(checkpoint, generator=str(generator)), ROLES)
        ours, teacher = backbone.tensors("generator"), backbone.tensors("surrogate")
        assert all(torch.equal(ours[name], expected[name]) for name in expected)
        assert not torch.equal(ours["proj_out.weight"], teacher["proj_out.weight"])


def test_bfloat16_computes_near_float32_and_answers_in_float32(checkpoint):
    exact = load_backbone(model(checkpoint), ["generator"])
    half = load_backbone(model(checkpoint, dtype="bfloat16"), ["generator"])
    latents, sigma, conditioning = inputs(exact)
    ours = half.denoiser("generator")(latents, sigma, half.encode_prompts(PROMPTS))
    assert ours.dtype == torch.float32
    assert all(p.dtype == torch.float32 for p in half.parameters("generator"))
    reference = exact.denoiser("generator")(latents, sigma, conditioning)
    assert 0 < (ours - reference).abs().mean() < 0.05 * reference.abs().mean()


def test_resolution_sets_the_latents_and_is_checked(checkpoint):
    assert load_backbone(model(checkpoint), ["teacher"]).latent_shape == (4, 8, 8)
    smaller = load_backbone(model(checkpoint, resolution=8), ["teacher"])
    assert smaller.latent_shape == (4, 4, 4)
    latents, sigma, conditioning = inputs(smaller)
    assert smaller.denoiser("teacher")(latents, sigma, conditioning).shape == (3, 4, 4, 4)
    wide = load_backbone(model(checkpoint, resolution=(8, 16)), ["teacher"])
    assert wide.latent_shape == (4, 4, 8)
    latents, sigma, conditioning = inputs(wide)
    assert wide.denoiser("teacher")(latents, sigma, conditioning).shape == (3, 4, 4, 8)
    assert wide.decode(latents).shape == (3, 3, 8, 16)
    with pytest.raises(ValueError, match=r"resolution=64: allowed are multiples of 4 up to 32"):
        load_backbone(model(checkpoint, resolution=64), ["teacher"])


def test_a_folder_without_a_transformer_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"model.teacher='.*': no readable transformer"):
        load_backbone(model(tmp_path), ["teacher"])
