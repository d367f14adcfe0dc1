"""What a run leaves behind loads in diffusers' own pipeline and gives the same pictures."""

from pathlib import Path

import numpy as np
import pytest
import torch
from diffusers import StableDiffusion3Pipeline
from PIL import Image

from services.checkpoint import save_checkpoint
from services.config import RunConfig, config_hash, resolved_yaml
from services.export import export, pipeline_call
from services.models.load import load_backbone
from services.sample import sample_images
from services.saved_generator import open_generator
from tdm_core.config import SamplerConfig
from tdm_core.sampler import sample
from tests.tiny_sd3 import PROMPTS, build_checkpoint

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(scope="module", params=["lora", "full"])
def run(request, teacher, tmp_path_factory) -> Path:
    """A run folder with a checkpoint whose generator and average differ from the teacher."""
    folder = tmp_path_factory.mktemp("run")
    config = RunConfig.model_validate(
        {
            "model": {
                "family": "sd3",
                "teacher": str(teacher),
                "roles": request.param,
                "lora_rank": 4,
                "lora_alpha": 8,
                "max_sequence_length": 0,
            },
            "prompts": {"train": folder / "prompts.txt"},
            "rewards": [{"name": "size", "kind": "jpeg_compressibility"}],
        }
    )
    (folder / "config.yaml").write_text(resolved_yaml(config))
    start = load_backbone(config.model, ["generator"]).tensors("generator")
    rng = torch.Generator().manual_seed(0)
    parts = {
        part: {n: t + 0.1 * torch.randn(t.shape, generator=rng) for n, t in start.items()}
        for part in ("generator", "generator_ema")
    }
    facts = {"config_hash": config_hash(config), "iteration": 3, "policy_version": 3}
    save_checkpoint(folder / "checkpoints" / "step_000003", parts, facts)
    return folder


def open_in_diffusers(exported: Path, teacher: Path, is_lora: bool) -> StableDiffusion3Pipeline:
    base = teacher if is_lora else exported
    pipe = StableDiffusion3Pipeline.from_pretrained(base, text_encoder_3=None, tokenizer_3=None)
    if is_lora:
        pipe.load_lora_weights(str(exported))
    pipe.set_progress_bar_config(disable=True)
    return pipe


def test_an_export_gives_the_real_pipeline_our_pictures(run, teacher, tmp_path):
    saved = open_generator(run)
    content = export(run, tmp_path / "out")
    is_lora = saved.model.roles == "lora"
    pipe = open_in_diffusers(tmp_path / "out", teacher, is_lora)
    assert ("load_lora_weights" in content["use"][0]) == is_lora
    assert content["origin"]["part"] == "generator_ema"

    backbone = saved.load()
    noise = torch.randn(2, *backbone.latent_shape, generator=torch.Generator().manual_seed(1))
    texts = list(PROMPTS[:2])
    conditioning = backbone.encode_prompts(texts)
    path = sample(backbone.denoiser("generator"), noise, conditioning, saved.sampler)
    ours = backbone.decode(path.boundaries_GKCHW[:, -1]).permute(0, 2, 3, 1).numpy()
    theirs = pipe(
        texts,
        num_inference_steps=4,
        sigmas=[1.0, 0.75, 0.5, 0.25],
        guidance_scale=1.0,
        max_sequence_length=0,
        latents=noise,
        height=16,
        width=16,
        output_type="np",
    ).images
    assert ours.std() > 5
    assert np.abs(ours - theirs * 255).max() < 1.0
    assert content["use"][1] == pipeline_call(SamplerConfig(), 0)
    assert "sigmas=[1.0, 0.75, 0.5, 0.25]" in content["use"][1]


def test_a_call_that_takes_other_steps_than_training_says_so():
    assert "#" not in pipeline_call(SamplerConfig(), 0)
    call = pipeline_call(SamplerConfig(solver="dpmpp_2m", grid="discrete"), 0)
    assert call.endswith("# Euler, not the dpmpp_2m of training")


def test_run_checkpoint_and_export_sample_the_same_files(run, tmp_path):
    export(run, tmp_path / "out")
    sources = (run, run / "checkpoints" / "step_000003", tmp_path / "out")
    files = [
        list(sample_images(open_generator(source), PROMPTS, tmp_path / str(place), seed=5))
        for place, source in enumerate(sources)
    ]
    assert [path.name for path in files[0]] == [
        "0000_00_a-red-cat.png",
        "0001_00_two-blue-dogs.png",
        "0002_00_a-cat-left-of-a-dog.png",
    ]
    pictures = [[np.asarray(Image.open(path)).astype(int) for path in each] for each in files]
    for other in pictures[1:]:
        assert all(np.abs(a - b).max() <= 1 for a, b in zip(pictures[0], other, strict=True))
    with Image.open(files[0][1]) as image:
        assert image.text == {"prompt": "two blue dogs", "seed": "5"}


def test_the_average_is_the_default_and_the_plain_weights_an_option(run):
    averaged, plain = open_generator(run), open_generator(run, averaged=False)
    name = next(iter(averaged.tensors))
    assert not torch.equal(averaged.tensors[name], plain.tensors[name])
    assert plain.origin["part"] == "generator"


def test_a_prompts_images_do_not_depend_on_the_other_prompts(run, tmp_path):
    saved = open_generator(run)
    both = list(sample_images(saved, PROMPTS[:2], tmp_path / "a", num_per_prompt=2))
    one = list(sample_images(saved, PROMPTS[:1], tmp_path / "b", num_per_prompt=2))
    for ours, alone in zip(both[:2], one, strict=True):
        difference = np.asarray(Image.open(ours)).astype(int) - np.asarray(Image.open(alone))
        assert np.abs(difference).max() <= 1


def test_what_cannot_be_opened_or_written_is_named(run, tmp_path):
    with pytest.raises(ValueError, match="is no run, checkpoint or export"):
        open_generator(tmp_path)
    (tmp_path / "config.yaml").write_text((run / "config.yaml").read_text())
    with pytest.raises(ValueError, match="has no checkpoint yet"):
        open_generator(tmp_path)
    with pytest.raises(ValueError, match="is not empty; export into a new folder"):
        export(run, tmp_path)
    export(run, tmp_path / "out")
    with pytest.raises(ValueError, match="is an export already"):
        export(tmp_path / "out", tmp_path / "again")
    (tmp_path / "out" / "tdm_r1.json").write_text("{}")
    with pytest.raises(ValueError, match=r"tdm_r1.json is damaged"):
        open_generator(tmp_path / "out")
