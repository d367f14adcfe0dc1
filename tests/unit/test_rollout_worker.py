"""The rollout worker on the toy world: keyed, stamped, verified."""

import pytest
import torch

from services.config import RunConfig, config_hash
from services.models.load import load_backbone
from services.rollout.worker import RolloutWorker
from services.weights import pack
from tdm_core.sampler import initial_noise, sample
from tdm_core.types import Prompt

pytestmark = pytest.mark.unit

LEFT, RIGHT = Prompt("toy:0", "label 0"), Prompt("toy:1", "label 1")


def toy_config(telemetry=None, **algorithm) -> RunConfig:
    return RunConfig.model_validate(
        {
            "algorithm": {"group_size": 4, **algorithm},
            "model": {"family": "toy", "teacher": "toy", "dtype": "float64", "roles": "full"},
            "prompts": {"train": "unused.jsonl"},
            "telemetry": telemetry or {},
            "rewards": [{"name": "upper_half", "kind": "python:tdm_core.toy:UpperHalfReward"}],
        }
    )


def moved(worker_config: RunConfig) -> dict[str, torch.Tensor]:
    tensors = load_backbone(worker_config.model, ["generator"]).tensors("generator")
    return {name: tensor + 0.1 for name, tensor in tensors.items()}


def test_a_group_is_the_sampled_path_of_its_own_noise_whatever_it_is_batched_with():
    config = toy_config()
    worker = RolloutWorker(config)
    together, _ = worker.generate([(3, LEFT), (8, RIGHT)])
    alone, _ = worker.generate([(8, RIGHT)])
    torch.testing.assert_close(
        together[1].trajectory.boundaries_GKCHW, alone[0].trajectory.boundaries_GKCHW
    )
    backbone = load_backbone(config.model, ["generator"])
    noise = initial_noise(0, 8, 4, (2, 1, 1), torch.empty(0, dtype=torch.float64))
    path = sample(
        backbone.denoiser("generator"),
        noise,
        backbone.encode_prompts(["label 1"]),
        config.algorithm.sampler,
    )
    assert torch.equal(alone[0].trajectory.boundaries_GKCHW, path.boundaries_GKCHW)
    assert alone[0].trajectory.sigmas == path.sigmas
    assert alone[0].conditioning["mode_weights"].shape == (1, 4)


def test_images_carry_the_groups_id_and_prompt_and_the_final_latents():
    worker = RolloutWorker(toy_config())
    rollouts, images = worker.generate([(3, LEFT), (8, RIGHT)])
    assert [group.group_id for group in images] == [3, 8]
    assert images[1].prompt == RIGHT
    assert images[0].images_GS3HW.shape == (4, 1, 3, 1, 2)
    final = rollouts[0].trajectory.boundaries_GKCHW[:, -1]
    assert torch.equal(images[0].images_GS3HW[:, 0, 1, 0], grey(final))


def grey(latents_NCHW) -> torch.Tensor:
    """(N, 2): the pixels that a point of the toy world is shown as."""
    return (128 + 32 * latents_NCHW.flatten(1)).round().clamp(0, 255).to(torch.uint8)


def test_images_can_be_had_one_group_by_itself():
    config = toy_config({"images_every": 0})
    rollouts, left, right = RolloutWorker(config).generate_apart([(3, LEFT), (8, RIGHT)])
    assert [group.group_id for group in rollouts] == [3, 8]
    assert [[group.group_id for group in images] for images in (left, right)] == [[3], [8]]


@pytest.mark.parametrize("per_step", ["terminal", "gain"])
@pytest.mark.parametrize("solver", ["euler", "dpmpp_2m"])
def test_stored_groups_have_what_each_step_predicted_the_image_to_be(per_step, solver):
    telemetry = {"images_every": 2, "images_per_group": 3, "predictions_per_group": 2}
    config = toy_config(telemetry, advantages={"per_step": per_step}, sampler={"solver": solver})
    worker, size = RolloutWorker(config), config.algorithm.num_groups
    stored, other = 2 * size, size
    (rollout, _), images, _, predictions = worker.generate_apart([(stored, LEFT), (other, RIGHT)])
    assert predictions.images_NK3HW.shape == (2, 3, 3, 1, 2)
    assert predictions.sigmas == rollout.trajectory.sigmas
    path = rollout.trajectory.boundaries_GKCHW[:2]
    denoiser = worker._backbone.denoiser("generator")
    conditioning = worker._backbone.encode_prompts(["label 0"] * 2)
    for k, sigma in enumerate(predictions.sigmas[:-2]):
        velocity = denoiser(path[:, k], torch.full((2,), sigma).double(), conditioning)
        clean = path[:, k] - sigma * velocity
        assert torch.equal(predictions.images_NK3HW[:, k, 0, 0], grey(clean))
    assert torch.equal(images[0].images_GS3HW[:2, -1, 0, 0], grey(path[:, -1]))


@pytest.mark.parametrize(("count", "num_steps"), [(0, 4), (4, 1)])
def test_where_there_is_no_prediction_to_store_none_is_decoded(count, num_steps):
    telemetry = {"images_every": 1, "predictions_per_group": count}
    config = toy_config(telemetry, sampler={"num_steps": num_steps}, slots_per_update=1)
    *_, predictions = RolloutWorker(config).generate_apart([(0, LEFT)])
    assert predictions.images_NK3HW.numel() == 0


def test_gain_decodes_the_clean_prediction_of_every_step():
    config = toy_config(advantages={"per_step": "gain"})
    rollouts, images = RolloutWorker(config).generate([(3, LEFT)])
    assert images[0].images_GS3HW.shape == (4, 4, 3, 1, 2)
    final = rollouts[0].trajectory.boundaries_GKCHW[:, -1]
    assert torch.equal(images[0].images_GS3HW[:, -1, 0, 0], grey(final))


def test_loaded_weights_change_the_samples_and_the_stamp():
    config = toy_config()
    worker = RolloutWorker(config)
    before, _ = worker.generate([(3, LEFT)])
    assert worker.load_weights(pack("generator", 5, moved(config), config_hash(config))) == 5
    after, images = worker.generate([(3, LEFT)])
    assert before[0].policy_version == 0
    assert after[0].policy_version == images[0].policy_version == 5
    assert not torch.equal(
        before[0].trajectory.boundaries_GKCHW, after[0].trajectory.boundaries_GKCHW
    )


def test_refused_weights_leave_generator_and_version_as_they_were():
    config = toy_config()
    worker = RolloutWorker(config)
    before, _ = worker.generate([(3, LEFT)])
    tensors = moved(config)
    incomplete = dict(list(tensors.items())[1:])
    for bad, reason in (
        (pack("surrogate", 5, tensors, config_hash(config)), "expected weights of 'generator'"),
        (pack("generator", 5, tensors, "0" * 64), "this worker runs"),
        (pack("generator", 5, incomplete, config_hash(config)), "1 tensors missing"),
    ):
        with pytest.raises(ValueError, match=reason):
            worker.load_weights(bad)
    after, _ = worker.generate([(3, LEFT)])
    assert worker.policy_version == 0
    assert torch.equal(before[0].trajectory.boundaries_GKCHW, after[0].trajectory.boundaries_GKCHW)
