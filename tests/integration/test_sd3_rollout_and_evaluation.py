"""Rollout and evaluation on a tiny SD3, for adapters and for full copies."""

from pathlib import Path

import pytest
import torch
from PIL import Image

from services.config import RunConfig, config_hash
from services.models.load import load_backbone
from services.models.roles import ROLES
from services.rollout.worker import RolloutWorker
from services.scored_evaluator import ScoredEvaluator
from services.weights import pack
from tdm_core.types import Prompt
from tests.tiny_sd3 import PROMPTS, build_checkpoint

pytestmark = pytest.mark.integration


@pytest.fixture(scope="module")
def teacher(tmp_path_factory) -> Path:
    return build_checkpoint(tmp_path_factory.mktemp("teacher"))


@pytest.fixture(params=["lora", "full"])
def config(request, teacher, tmp_path) -> RunConfig:
    heldout = tmp_path / "heldout.txt"
    heldout.write_text("\n".join(PROMPTS))
    return RunConfig.model_validate(
        {
            "algorithm": {"group_size": 3},
            "model": {
                "family": "sd3",
                "teacher": str(teacher),
                "roles": request.param,
                "lora_rank": 4,
                "lora_alpha": 8,
                "max_sequence_length": 0,
                "device": "cpu",
            },
            "prompts": {"train": heldout, "heldout": heldout},
            "rewards": [{"name": "size", "kind": "jpeg_compressibility"}],
            "evaluation": {"num_images": 6, "batch_size": 4, "teacher_steps": 3},
        }
    )


def changed(config: RunConfig):
    tensors = load_backbone(config.model, ["generator"]).tensors("generator")
    rng = torch.Generator().manual_seed(0)
    moved = {n: t + 0.3 * torch.randn(t.shape, generator=rng) for n, t in tensors.items()}
    return pack("generator", 4, moved, config_hash(config))


def test_a_group_holds_its_path_its_one_row_and_its_images(config):
    worker = RolloutWorker(config)
    requests = [(n, Prompt(f"p:{n}", text)) for n, text in enumerate(PROMPTS)]
    before, images = worker.generate(requests)
    assert before[1].trajectory.boundaries_GKCHW.shape == (3, 5, 4, 8, 8)
    assert before[1].conditioning["prompt_embeds"].shape == (1, 12, 48)
    assert before[1].num_bytes == 4 * (3 * 5 * 4 * 8 * 8 + 12 * 48 + 40)
    assert images[2].images_GS3HW.shape == (3, 1, 3, 16, 16)
    worker.load_weights(changed(config))
    after, _ = worker.generate(requests)
    first, last = (
        after[0].trajectory.boundaries_GKCHW[:, k] - before[0].trajectory.boundaries_GKCHW[:, k]
        for k in (0, -1)
    )
    assert not first.any()  # the noise is the group's, not the version's
    assert last.abs().mean() > 0.01
    assert after[0].policy_version == 4


def test_one_shared_backbone_serves_learners_rollout_and_evaluator(config, tmp_path):
    backbone = load_backbone(config.model, ROLES)
    worker = RolloutWorker(config, backbone=backbone)
    evaluator = ScoredEvaluator(config, tmp_path, backbone)
    request = [(0, Prompt("p:0", PROMPTS[0]))]
    before, _ = worker.generate(request)
    start = evaluator.evaluate(None, "before")
    moved = evaluator.evaluate(changed(config), "after")
    teacher = evaluator.evaluate_teacher()
    again, _ = worker.generate(request)
    assert torch.equal(before[0].trajectory.boundaries_GKCHW, again[0].trajectory.boundaries_GKCHW)
    assert len({start["size"], moved["size"], teacher["size"]}) == 3
    assert moved["num_images"] == 6
    assert moved["size/missing"] == 0
    with Image.open(moved["grid"]) as grid:
        assert grid.size[1] > 2 * 16
