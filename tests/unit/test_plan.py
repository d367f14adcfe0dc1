"""The memory estimate, on a model folder whose sizes are known by hand."""

import json

import pytest
import torch
from safetensors.torch import save_file

from services.config import config_from_tree
from services.plan import PROGRAM_BYTES, Checkpoint, estimate, read_shapes

pytestmark = pytest.mark.unit

WIDTH, LAYERS = 8, 2
PER_LAYER = WIDTH * WIDTH + WIDTH


@pytest.fixture
def teacher(tmp_path):
    transformer = tmp_path / "teacher/transformer"
    transformer.mkdir(parents=True)
    tensors = {
        f"transformer_blocks.{layer}.attn.to_q.{part}": torch.zeros(shape)
        for layer in range(LAYERS)
        for part, shape in (("weight", (WIDTH, WIDTH)), ("bias", (WIDTH,)))
    }
    save_file(tensors, transformer / "model.safetensors")
    sizes = {
        "num_layers": LAYERS,
        "num_attention_heads": 2,
        "attention_head_dim": WIDTH // 2,
        "sample_size": 4,
        "patch_size": 1,
        "in_channels": 3,
        "joint_attention_dim": 5,
    }
    (transformer / "config.json").write_text(json.dumps(sizes))
    return tmp_path / "teacher"


def plan_of(teacher, **sections):
    tree = {
        "model": {"family": "sd3", "teacher": str(teacher), "max_sequence_length": 0},
        "prompts": {"train": "prompts.txt"},
        "rewards": [{"name": "size", "kind": "jpeg_compressibility"}],
    }
    tree["model"] |= sections.pop("model", {})
    plan = estimate(config_from_tree(tree | sections, "test", check_files=False))
    return plan, {process.name: process for process in plan.processes}


def test_shapes_are_read_from_the_header_alone(teacher):
    shapes = read_shapes(teacher / "transformer/model.safetensors")
    assert shapes["transformer_blocks.1.attn.to_q.weight"] == [WIDTH, WIDTH]
    assert Checkpoint(teacher).transformer == LAYERS * PER_LAYER
    assert Checkpoint(teacher).adapter(rank=4) == LAYERS * 4 * 2 * WIDTH


def test_a_file_that_is_no_safetensors_is_named(tmp_path):
    (tmp_path / "x.safetensors").write_bytes(b"short")
    with pytest.raises(ValueError, match=r"x\.safetensors is no safetensors file"):
        read_shapes(tmp_path / "x.safetensors")


def test_full_copies_cost_a_network_a_role(teacher):
    _, processes = plan_of(teacher, model={"roles": "full"})
    network = 4 * LAYERS * PER_LAYER
    memory = processes["generator"].memory
    assert memory.weights == 4 * network  # teacher, generator, fake score, surrogate
    assert memory.training == 2 * 3 * network + network  # gradient and moments twice, one EMA
    assert processes["rollout-0"].memory.weights == network


def test_adapters_cost_the_backbone_once(teacher):
    _, processes = plan_of(teacher, model={"roles": "lora", "lora_rank": 4, "dtype": "bfloat16"})
    adapter = 4 * LAYERS * 4 * 2 * WIDTH
    backbone = 2 * LAYERS * PER_LAYER
    assert processes["surrogate"].memory.weights == backbone + 2 * adapter


def test_zero_shares_the_moments_over_ranks(teacher):
    _, one = plan_of(teacher, model={"roles": "full"})
    _, two = plan_of(
        teacher, model={"roles": "full"}, cluster={"generator_ranks": 2, "zero_stage": 2}
    )
    assert two["generator"].memory.training < one["generator"].memory.training
    assert two["generator"].ranks == 2


def test_the_buffer_is_every_boundary_of_every_group(teacher):
    _, processes = plan_of(teacher, algorithm={"group_size": 2, "replay": {"capacity_groups": 10}})
    path, row = 2 * 5 * 3 * 4 * 4, 77 * 5
    assert processes["replay"].memory.data == 4 * 10 * (path + row)


def test_colocated_is_one_process_with_every_worker(teacher):
    plan, processes = plan_of(teacher, cluster={"placement": "colocated"})
    assert {"generator", "surrogate", "rollout-0"} <= set(processes["colocated"].workers)
    assert plan.num_cpus == sum(p.num_cpus * p.ranks for p in plan.processes)
    assert processes["colocated"].memory.program == PROGRAM_BYTES


def test_a_model_that_is_not_here_is_said_to_be_missing(tmp_path):
    plan, _ = plan_of("nobody/no-such-model")
    assert "nobody/no-such-model is not on this machine" in plan.remarks[0]


@pytest.mark.parametrize(("every", "warned"), [(0, True), (50, False)])
def test_held_out_rewards_that_are_judged_too_seldom_for_an_alert_are_remarked(
    teacher, every, warned
):
    judge = {"name": "noise", "kind": "jpeg_incompressibility"}
    plan, _ = plan_of(
        teacher,
        prompts={"train": "prompts.txt", "heldout": "heldout.txt"},
        evaluation={"num_images": 4, "every": every, "rewards": [judge]},
    )
    assert any("evaluation.every=0" in remark for remark in plan.remarks) is warned
