"""Both learners on a tiny SD3 whose roles are LoRA adapters of one backbone."""

from pathlib import Path
from typing import Any

import pytest
import torch

from services.config import RunConfig, config_from_tree
from services.generator.learner import GeneratorLearner
from services.models.backbone import Backbone
from services.models.load import load_backbone
from services.models.roles import ROLES
from services.surrogate.learner import SurrogateLearner
from tdm_core.seeding import rng_for
from tdm_core.types import FreshBatch, RewardedBatch
from tests.learner_cases import Learners
from tests.tiny_sd3 import PROMPTS, build_checkpoint

pytestmark = pytest.mark.integration

GROUP_SIZE = 3


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("sd3"))


def sd3_config(checkpoint: Path, dtype: str = "float32", **cluster: Any) -> RunConfig:
    tree = {
        "algorithm": {"num_groups": 2, "group_size": GROUP_SIZE},
        "model": {
            "family": "sd3",
            "teacher": str(checkpoint),
            "lora_rank": 4,
            "max_sequence_length": 0,
            "device": "cpu",
            "dtype": dtype,
        },
        "prompts": {"train": "prompts.txt"},
        "rewards": [{"name": "ocr", "kind": "ocr"}],
        "cluster": cluster,
    }
    return config_from_tree(tree, "sd3_config", check_files=False)


def random_batch(config: RunConfig, backbone: Backbone) -> RewardedBatch:
    """Random boundaries and advantages: enough for gradients of every kind."""
    num_groups, steps = config.algorithm.num_groups, config.algorithm.sampler.num_steps
    rows, rng = num_groups * GROUP_SIZE, rng_for(0, "random_batch")
    texts = [PROMPTS[group] for group in range(num_groups) for _ in range(GROUP_SIZE)]
    shape = (rows, steps + 1, *backbone.latent_shape)
    fresh = FreshBatch(
        boundaries_NKCHW=torch.randn(shape, generator=rng),
        sigmas=(1.0, 0.9, 0.75, 0.5, 0.0),
        conditioning=backbone.encode_prompts(texts),
        group_ids=tuple(range(num_groups)),
        group_sizes=(GROUP_SIZE,) * num_groups,
        policy_versions=(0,) * num_groups,
    )
    advantages = torch.tensor([1.0, -1.0, 0.0]).double().repeat(num_groups)[:, None].expand(-1, 4)
    valid = torch.ones(rows, 4, dtype=torch.bool)
    return RewardedBatch(fresh, advantages, valid, (1.0,) * num_groups, {})


def train(config: RunConfig, steps: int = 2) -> Learners:
    """Both learners over one backbone."""
    torch.manual_seed(0)
    backbone = load_backbone(config.model, ROLES)
    learners = Learners(
        GeneratorLearner(config, backbone=backbone), SurrogateLearner(config, backbone=backbone)
    )
    batch = random_batch(config, backbone)
    for _ in range(steps):
        metrics = learners.iterate(batch)
        assert all(metrics[f"{role}/grad_norm"] > 0 for role in ("fake_score", "generator"))
    return learners


@pytest.mark.parametrize("zero_stage", [0, 2])
def test_adapters_train_alike_under_deepspeed_and_torch(checkpoint: Path, zero_stage: int) -> None:
    plain = train(sd3_config(checkpoint, engine="torch")).tensors()
    config = sd3_config(checkpoint, engine="deepspeed", zero_stage=zero_stage)
    for name, tensor in train(config).tensors().items():
        torch.testing.assert_close(tensor, plain[name], rtol=1e-5, atol=1e-7)


def test_every_trained_adapter_moves_and_the_backbone_stays(checkpoint: Path) -> None:
    config = sd3_config(checkpoint, engine="torch")
    start = load_backbone(config.model, ROLES)
    learners = train(config)
    after = learners.generator.backbone
    for role in ("generator", "fake_score", "surrogate", "surrogate_ema"):
        ours, before = after.tensors(role), start.tensors(role)
        assert any(not torch.equal(ours[name], before[name]) for name in ours)
    frozen = {n: p for n, p in after.module("teacher").named_parameters() if "lora" not in n}
    origin = dict(start.module("teacher").named_parameters())
    assert all(torch.equal(parameter, origin[name]) for name, parameter in frozen.items())


def test_bfloat16_autocast_trains_float32_adapters(checkpoint: Path) -> None:
    learners = train(sd3_config(checkpoint, dtype="bfloat16", engine="deepspeed"), steps=1)
    parameters = learners.generator.backbone.parameters("generator")
    assert {parameter.dtype for parameter in parameters} == {torch.float32}
    assert all(torch.isfinite(parameter).all() for parameter in parameters)
