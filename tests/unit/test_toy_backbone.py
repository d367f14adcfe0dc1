"""The toy backbone keeps the contract of `Backbone`."""

import pytest
import torch

from services.config import ModelConfig
from services.models.load import load_backbone, resolve_device
from services.models.roles import ROLES

pytestmark = pytest.mark.unit

MODEL = ModelConfig(family="toy", teacher="toy", roles="full", dtype="float64")


def velocity(backbone, role: str) -> torch.Tensor:
    latents = torch.linspace(-1, 1, 6, dtype=torch.float64).reshape(3, 2, 1, 1)
    conditioning = backbone.encode_prompts(["label 0", "label 1", "label 0"])
    return backbone.denoiser(role)(latents, torch.tensor([1.0, 0.5, 0.1]).double(), conditioning)


def test_all_roles_start_as_the_teacher_and_move_alone():
    backbone = load_backbone(MODEL, ROLES)
    start = velocity(backbone, "teacher")
    with torch.no_grad():
        for parameter in backbone.parameters("fake_score"):
            parameter.add_(0.1)
    for role in ROLES:
        assert torch.equal(velocity(backbone, role), start) == (role != "fake_score")
    backbone.copy_role("fake_score", "surrogate")
    assert torch.equal(velocity(backbone, "surrogate"), velocity(backbone, "fake_score"))


def test_only_the_asked_for_role_gets_a_gradient():
    backbone = load_backbone(MODEL, ROLES)
    velocity(backbone, "generator").square().sum().backward()
    assert backbone.parameters("teacher") == []
    assert any(p.grad is not None for p in backbone.parameters("generator"))
    for role in ("fake_score", "surrogate", "surrogate_ema"):
        assert all(p.grad is None and p.requires_grad for p in backbone.parameters(role))
    assert all(p.grad is None for p in backbone.module("teacher").parameters())


def test_tensors_are_copies_that_load_back_in_place():
    backbone = load_backbone(MODEL, ["generator", "surrogate"])
    parameters = backbone.parameters("generator")
    saved = backbone.tensors("generator")
    with torch.no_grad():
        parameters[0].add_(1.0)
    assert not torch.equal(saved["inner.weight"], parameters[0])
    backbone.load("generator", saved)
    assert backbone.parameters("generator")[0] is parameters[0]
    assert torch.equal(saved["inner.weight"], parameters[0])


def test_a_role_that_was_not_asked_for_is_named_in_the_error():
    backbone = load_backbone(MODEL, ["generator"])
    with pytest.raises(ValueError, match=r"'surrogate' is not loaded here \(loaded: generator\)"):
        backbone.denoiser("surrogate")
    with pytest.raises(ValueError, match="unknown role 'critic'"):
        load_backbone(MODEL, ["critic"])


def test_a_prompt_outside_the_world_is_refused():
    backbone = load_backbone(MODEL, ["generator"])
    with pytest.raises(ValueError, match="the toy world knows `label 0` to `label 1`"):
        backbone.encode_prompts(["label 2"])


def test_shapes_of_what_leaves_the_backbone():
    backbone = load_backbone(MODEL, ["generator"])
    assert backbone.latent_shape == (2, 1, 1)
    assert backbone.dtype == torch.float64
    assert backbone.unconditional["mode_weights"].shape == (1, 4)
    images = backbone.decode(torch.zeros(5, 2, 1, 1, dtype=torch.float64))
    assert images.shape == (5, 3, 1, 2)
    assert images.dtype == torch.uint8


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
def test_a_missing_gpu_is_said_at_once():
    assert resolve_device("auto").type == "cpu"
    with pytest.raises(ValueError, match="this process sees no GPU"):
        resolve_device("cuda")
