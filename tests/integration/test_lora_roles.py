"""Roles as adapters on one backbone compute and learn what separate networks would."""

import itertools
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from diffusers import SD3Transformer2DModel, StableDiffusion3Pipeline

from services.config import ModelConfig
from services.models.load import load_backbone
from services.models.roles import ROLES
from services.models.sd3_weights import merge_lora, read_lora
from tests.tiny_sd3 import PROMPTS, build_checkpoint

pytestmark = pytest.mark.integration

TRAINED = tuple(role for role in ROLES if role != "teacher")
RANK, ALPHA = 4, 8


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("sd3"))


def backbone_of(checkpoint: Path, loaded=ROLES, **fields):
    defaults = {"family": "sd3", "roles": "lora", "lora_rank": RANK, "lora_alpha": ALPHA}
    defaults |= {"max_sequence_length": 0, "device": "cpu"}
    return load_backbone(ModelConfig(teacher=str(checkpoint), **defaults | fields), loaded)


def inputs(backbone):
    rng = torch.Generator().manual_seed(0)
    latents = torch.randn(3, *backbone.latent_shape, generator=rng)
    return latents, torch.tensor([1.0, 0.6, 0.2]), backbone.encode_prompts(PROMPTS)


def scramble(backbone, *roles: str) -> None:
    """Make each role's adapter a different function, B included."""
    with torch.no_grad():
        for number, role in enumerate(roles):
            rng = torch.Generator().manual_seed(number)
            for parameter in backbone.parameters(role):
                parameter.copy_(0.3 * torch.randn(parameter.shape, generator=rng))


def separate(checkpoint: Path, backbone, role: str) -> SD3Transformer2DModel:
    """The role as a network of its own: its adapter merged into the weights."""
    network = SD3Transformer2DModel.from_pretrained(checkpoint, subfolder="transformer")
    adapter = backbone.tensors(role)
    for name, weight in network.state_dict().items():
        a = adapter.get(name.replace(".weight", ".lora_A.weight"))
        if a is not None:
            weight += ALPHA / RANK * adapter[name.replace(".weight", ".lora_B.weight")] @ a
    return network


def run(network: SD3Transformer2DModel, latents, sigma, conditioning) -> torch.Tensor:
    return network(
        latents,
        encoder_hidden_states=conditioning["prompt_embeds"],
        pooled_projections=conditioning["pooled_prompt_embeds"],
        timestep=1000 * sigma,
    ).sample


def test_every_role_starts_exactly_as_the_teacher(checkpoint):
    backbone = backbone_of(checkpoint)
    arguments = inputs(backbone)
    with torch.no_grad():
        start = backbone.denoiser("teacher")(*arguments)
        bare = SD3Transformer2DModel.from_pretrained(checkpoint, subfolder="transformer")
        torch.testing.assert_close(start, run(bare, *arguments), rtol=0, atol=0)
        for role in TRAINED:
            assert torch.equal(backbone.denoiser(role)(*arguments), start)
    assert backbone.parameters("teacher") == []


def test_the_eight_projections_of_every_block_are_adapted_and_nothing_else(checkpoint):
    names = backbone_of(checkpoint).tensors("generator")
    modules = {name.partition(".lora_")[0].partition(".attn.")[2] for name in names}
    eight = {"to_q", "to_k", "to_v", "to_out.0"}
    assert modules == eight | {"add_q_proj", "add_k_proj", "add_v_proj", "to_add_out"}
    assert len(names) == 2 * (8 + 7)  # the last block has no to_add_out
    assert names["transformer_blocks.0.attn.to_q.lora_A.weight"].shape == (RANK, 16)


def test_adapters_start_gaussian_and_the_same_in_every_process(checkpoint):
    first, second = backbone_of(checkpoint), backbone_of(checkpoint, ["surrogate", "generator"])
    a = "transformer_blocks.1.attn.to_k.lora_A.weight"
    starts = {role: first.tensors(role)[a] for role in TRAINED}
    assert torch.equal(starts["surrogate"], second.tensors("surrogate")[a])
    assert torch.equal(starts["surrogate"], starts["surrogate_ema"])
    assert not torch.equal(starts["surrogate"], starts["generator"])
    assert 0.5 < starts["generator"].std() * RANK < 1.5
    assert all(not t.any() for n, t in first.tensors("generator").items() if "lora_B" in n)


def test_each_role_computes_what_its_merged_network_computes(checkpoint):
    backbone = backbone_of(checkpoint)
    scramble(backbone, *TRAINED)
    arguments = inputs(backbone)
    with torch.no_grad():
        outputs = {role: backbone.denoiser(role)(*arguments) for role in ROLES}
        for role in TRAINED:
            alone = run(separate(checkpoint, backbone, role), *arguments)
            torch.testing.assert_close(outputs[role], alone, rtol=1e-4, atol=1e-4)
    for one, other in itertools.combinations(ROLES, 2):
        assert not torch.allclose(outputs[one], outputs[other], atol=1e-2)


def test_other_roles_forward_passes_do_not_disturb_a_pending_backward(checkpoint):
    backbone = backbone_of(checkpoint)
    scramble(backbone, *TRAINED)
    arguments = inputs(backbone)

    backbone.denoiser("generator")(*arguments).square().mean().backward()
    undisturbed = [p.grad.clone() for p in backbone.parameters("generator")]
    for parameter in backbone.parameters("generator"):
        parameter.grad = None

    loss = backbone.denoiser("generator")(*arguments).square().mean()
    with torch.no_grad():
        for role in ("fake_score", "teacher", "surrogate"):
            backbone.denoiser(role)(*arguments)
    loss.backward()
    for gradient, parameter in zip(undisturbed, backbone.parameters("generator"), strict=True):
        assert torch.equal(gradient, parameter.grad)


def test_gradients_are_those_of_separate_networks_with_the_roles_interleaved(checkpoint):
    backbone = backbone_of(checkpoint)
    scramble(backbone, *TRAINED)
    arguments = inputs(backbone)
    networks = {r: separate(checkpoint, backbone, r) for r in ("generator", "surrogate")}
    losses = {role: backbone.denoiser(role)(*arguments).square().sum() for role in networks}
    (losses["generator"] * 2 + losses["surrogate"]).backward()
    for role, factor in (("generator", 2), ("surrogate", 1)):
        network = networks[role]
        (run(network, *arguments).square().sum() * factor).backward()
        weight = network.get_submodule("transformer_blocks.0.attn.to_v").weight.grad
        tensors = backbone.tensors(role)
        a = tensors["transformer_blocks.0.attn.to_v.lora_A.weight"]
        names = list(tensors)
        ours = backbone.parameters(role)[
            names.index("transformer_blocks.0.attn.to_v.lora_B.weight")
        ]
        # W + (alpha/r) B A: the gradient of B is (alpha/r) times W's, seen through A.
        expected = ALPHA / RANK * weight @ a.T
        torch.testing.assert_close(ours.grad, expected, rtol=1e-3, atol=1e-4)


def test_no_gradient_reaches_another_role_and_no_flag_moves(checkpoint):
    backbone = backbone_of(checkpoint)
    scramble(backbone, *TRAINED)
    module = backbone.module("generator")
    flags = {name: p.requires_grad for name, p in module.named_parameters()}
    arguments = inputs(backbone)
    backbone.denoiser("fake_score")(*arguments).square().mean().backward()
    for name, parameter in module.named_parameters():
        assert parameter.requires_grad == flags[name] == (".lora_" in name)
        assert (parameter.grad is not None) == name.endswith(".fake_score.weight")
    with pytest.raises(RuntimeError, match="4 channels"):
        backbone.denoiser("surrogate")(arguments[0][:, :2], *arguments[1:])
    assert torch.equal(
        module(
            arguments[0],
            encoder_hidden_states=arguments[2]["prompt_embeds"],
            pooled_projections=arguments[2]["pooled_prompt_embeds"],
            timestep=1000 * arguments[1],
        ).sample,
        backbone.denoiser("teacher")(*arguments),
    )


def test_adapter_tensors_move_between_roles_and_backbones(checkpoint):
    backbone, other = backbone_of(checkpoint), backbone_of(checkpoint, ["generator"])
    scramble(backbone, "surrogate")
    parameter = backbone.parameters("generator")[0]
    backbone.copy_role("surrogate", "generator")
    assert backbone.parameters("generator")[0] is parameter
    other.load("generator", backbone.tensors("generator"))
    arguments = inputs(backbone)
    with torch.no_grad():
        expected = backbone.denoiser("surrogate")(*arguments)
        assert torch.equal(other.denoiser("generator")(*arguments), expected)
    name = "transformer_blocks.0.attn.to_q.lora_A.weight"
    misshapen = {**other.tensors("generator"), name: torch.zeros(2, 16)}
    with pytest.raises(ValueError, match=r"to_q.lora_A.weight has shape \(2, 16\)"):
        other.load("generator", misshapen)


def test_bfloat16_keeps_a_half_backbone_under_float32_adapters(checkpoint):
    backbone = backbone_of(checkpoint, dtype="bfloat16")
    exact = backbone_of(checkpoint)
    for each in (backbone, exact):
        scramble(each, "generator")
    assert backbone.module("teacher").proj_out.weight.dtype == torch.bfloat16
    assert all(p.dtype == torch.float32 for p in backbone.parameters("generator"))
    arguments = inputs(exact)
    ours, reference = (each.denoiser("generator")(*arguments) for each in (backbone, exact))
    assert ours.dtype == torch.float32
    assert (ours - reference).abs().mean() < 0.05 * reference.abs().mean()
    ours.square().mean().backward()
    assert all(p.grad.dtype == torch.float32 for p in backbone.parameters("generator"))


def saved_lora(checkpoint: Path, folder: Path, **fields) -> tuple[Path, torch.Tensor]:
    backbone = backbone_of(checkpoint, ["generator"], **fields)
    scramble(backbone, "generator")
    backbone.save_generator(str(folder), backbone.tensors("generator"))
    with torch.no_grad():
        velocity = backbone.denoiser("generator")(*inputs(backbone))
    return folder / "pytorch_lora_weights.safetensors", velocity


def test_a_saved_adapter_gives_the_real_pipeline_the_same_velocity(checkpoint, tmp_path):
    _, velocity = saved_lora(checkpoint, tmp_path)
    pipe = StableDiffusion3Pipeline.from_pretrained(
        checkpoint, text_encoder_3=None, tokenizer_3=None
    )
    pipe.load_lora_weights(str(tmp_path))
    with torch.no_grad():
        theirs = run(pipe.transformer, *inputs(backbone_of(checkpoint, ["teacher"])))
    torch.testing.assert_close(theirs, velocity, rtol=1e-5, atol=1e-5)


def test_a_diffusers_saved_adapter_starts_the_generator(checkpoint, tmp_path):
    file, velocity = saved_lora(checkpoint, tmp_path)
    pipe = StableDiffusion3Pipeline.from_pretrained(
        checkpoint, text_encoder_3=None, tokenizer_3=None
    )
    pipe.load_lora_weights(str(tmp_path))
    again = tmp_path / "again"
    pipe.transformer.save_lora_adapter(str(again), "default_0")
    for generator in (file, tmp_path, again):
        backbone = backbone_of(checkpoint, generator=str(generator))
        with torch.no_grad():
            ours = backbone.denoiser("generator")(*inputs(backbone))
            assert torch.equal(
                backbone.denoiser("surrogate")(*inputs(backbone)),
                backbone.denoiser("teacher")(*inputs(backbone)),
            )
        torch.testing.assert_close(ours, velocity, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fields", [{"lora_rank": 6, "lora_alpha": 3}, {"roles": "full"}])
def test_the_start_is_the_same_function_at_another_rank_or_merged(checkpoint, tmp_path, fields):
    file, velocity = saved_lora(checkpoint, tmp_path)
    backbone = backbone_of(checkpoint, ["generator"], generator=str(file), **fields)
    with torch.no_grad():
        ours = backbone.denoiser("generator")(*inputs(backbone))
    torch.testing.assert_close(ours, velocity, rtol=1e-4, atol=1e-4)


def test_a_start_that_does_not_fit_is_refused_with_the_remedy(checkpoint, tmp_path):
    file, _ = saved_lora(checkpoint, tmp_path)
    with pytest.raises(ValueError, match=r"has rank 4, above model.lora_rank=2; set model.lora_ra"):
        backbone_of(checkpoint, generator=str(file), lora_rank=2)
    with pytest.raises(ValueError, match=r"holds whole weights, .* set model.roles=full"):
        backbone_of(checkpoint, generator=str(checkpoint))
    weights = checkpoint / "transformer" / "diffusion_pytorch_model.safetensors"
    with pytest.raises(ValueError, match="is no LoRA tensor"):
        backbone_of(checkpoint, generator=str(weights))
    with pytest.raises(ValueError, match="no such file"):
        backbone_of(checkpoint, generator=str(tmp_path / "none.safetensors"))


def test_merging_refuses_a_module_that_the_teacher_lacks(checkpoint, tmp_path):
    lora = read_lora(saved_lora(checkpoint, tmp_path)[0])
    foreign = {**lora.tensors, "other.lora_A.weight": torch.zeros(4, 4)}
    teacher = SD3Transformer2DModel.from_pretrained(checkpoint, subfolder="transformer")
    with pytest.raises(ValueError, match="adapts other, which the teacher does not have"):
        merge_lora(teacher.state_dict(), replace(lora, tensors=foreign))
